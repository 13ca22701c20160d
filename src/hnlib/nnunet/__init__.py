"""nnU-Net v2 with losses and draws of this library: `trainers`, which nnU-Net finds in this folder by itself.

::

    export nnUNet_extTrainer=$(hnlib nnunet)
    nnUNetv2_train DATASET 3d_fullres 0 -tr TopKDiceTrainer -p nnUNetPlans_hnlib

`draw` holds what the trainers know of sampling; it needs no nnU-Net. This file imports neither.
"""
