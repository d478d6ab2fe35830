"""Files: images, measurement files, and writing that an interruption cannot spoil."""
