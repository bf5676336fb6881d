"""Images: the repository, inspection of what is uploaded, the cloud-init seed, and the starter image."""
