"""The hospital's archive: receiving, asking, fetching and watching, all into one inbox."""
