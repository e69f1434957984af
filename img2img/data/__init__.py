"""Folders of images become batches of tensors."""
