"""`veriformer score --tests`: a user's own tests, run with each fault of the catalogue in the place of the kernel they test."""
