"""A recipe carried out from end to end, and the run folder it leaves."""
