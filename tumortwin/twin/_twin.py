"""A twin: a patient, the model that stands for them, and what is believed of its parameters. Immutable."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxtyping import Array
from numpyro.distributions import Distribution

from tumortwin.inference import AbstractCalibrator, Posterior, Problem, calibrate
from tumortwin.solvers import FixedSteps
from tumortwin.twin._build import GliomaSettings, build_problem
from tumortwin.twin._frame import ModelFrame
from tumortwin.twin._patient import Patient, Scan


@dataclasses.dataclass(frozen=True)
class Twin:
    """One version of a patient's twin.

    `patient` holds the scans that are assimilated; `frame`, `solver`, `prior`, `settings` say how; `posterior` what
    came of it (None before the first calibration). `assimilate` returns a new twin; nothing is changed in place.
    """

    patient: Patient
    frame: ModelFrame
    solver: FixedSteps
    prior: Mapping[str, Distribution]
    settings: GliomaSettings
    posterior: Posterior | None = None

    @classmethod
    def of(
        cls,
        patient: Patient,
        solver: FixedSteps,
        prior: Mapping[str, Distribution],
        settings: GliomaSettings | None = None,
        *,
        spacing: float = 3.0,
        margin: float = 25.0,
        bucket: int = 8,
    ) -> "Twin":
        """A twin of a patient, framed around what the patient's scans outline, not calibrated yet."""
        frame = ModelFrame.around(patient, spacing=spacing, margin=margin, bucket=bucket)
        return cls(patient, frame, solver, prior, settings or GliomaSettings())

    def problem(self) -> Problem:
        """The calibration problem of the scans assimilated so far."""
        return build_problem(self.patient, self.frame, self.solver, self.prior, self.settings)

    def calibrated(
        self,
        calibrator: AbstractCalibrator,
        *,
        progress: Callable[[str, int, int], None] | None = None,
        key: Array,
    ) -> "Twin":
        """This twin with the posterior that `calibrator` finds."""
        posterior = calibrate(self.problem(), calibrator, key=key, progress=progress)
        return dataclasses.replace(self, posterior=posterior)

    def assimilate(self, scan: Scan, calibrator: AbstractCalibrator, *, key: Array) -> "Twin":
        """A new twin that has seen `scan` too; the same scan twice changes nothing.

        The batch posterior of all scans is computed anew, so the order of assimilation does not matter.

        **Raises:** `ValueError` for another scan of a day that is already there, or one earlier than the first visit.
        """
        same = [s for s in self.patient.scans if s.day == scan.day]
        if same and same[0] is scan and self.posterior is not None:
            return self
        if same and same[0] is not scan:
            raise ValueError(f"required: one scan a day; received: a second one of day {scan.day:g}")
        if scan.day < self.patient.scans[0].day:
            raise ValueError(
                f"required: a scan not before the first visit (day {self.patient.scans[0].day:g}); received day "
                f"{scan.day:g}; try: a new twin that starts there"
            )
        scans = self.patient.scans if same else tuple(sorted((*self.patient.scans, scan), key=lambda s: s.day))
        patient = dataclasses.replace(self.patient, scans=scans)
        frame = self.frame.around_again(patient)
        return dataclasses.replace(self, patient=patient, frame=frame).calibrated(calibrator, key=key)
