"""The door: NIfTI, patient folders, public data sets, result stores. Units are converted here, once."""

from tumortwin._files import atomic_path as atomic_path
from tumortwin._files import write_text as write_text
from tumortwin.io._atlas import AtlasAnatomy as AtlasAnatomy
from tumortwin.io._atlas import atlas_files as atlas_files
from tumortwin.io._atlas import atlas_tissue as atlas_tissue
from tumortwin.io._atlas import load_atlas_anatomy as load_atlas_anatomy
from tumortwin.io._bids import bids_name as bids_name
from tumortwin.io._bids import write_dataset_description as write_dataset_description
from tumortwin.io._checks import check_doses as check_doses
from tumortwin.io._example import write_example_patient as write_example_patient
from tumortwin.io._folder import load_folder_patient as load_folder_patient
from tumortwin.io._gbm_progression import load_gbm_progression as load_gbm_progression
from tumortwin.io._registration import Gate as Gate
from tumortwin.io._registration import Registration as Registration
from tumortwin.io._registration import register_rigid as register_rigid
from tumortwin.io._resample import resample_volume as resample_volume
from tumortwin.io._roots import find_data_root as find_data_root
from tumortwin.io._store import read_forecast as read_forecast
from tumortwin.io._store import read_posterior as read_posterior
from tumortwin.io._store import write_forecast as write_forecast
from tumortwin.io._store import write_posterior as write_posterior
from tumortwin.io._tcga_lgg import load_tcga_lgg as load_tcga_lgg
from tumortwin.io._tcga_lgg import sri24_labels as sri24_labels
from tumortwin.io._volume import Volume as Volume
from tumortwin.io._volume import read_volume as read_volume
from tumortwin.io._volume import write_volume as write_volume
