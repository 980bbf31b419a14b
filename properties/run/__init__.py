"""A run on disk and its processes: the folder, what is started and ends with it, work shared among cores."""
