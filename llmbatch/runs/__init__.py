"""Running: where the rooms meet. A job in; a run folder with one checked record for every row out."""
