"""The hospital: intake, de-identification, quality, training under privacy, the one door out."""
