"""Who is timed beside whom, all on the same weights and inputs; each is made when first asked for."""
