"""Input: data sets on disk, their preparation, and the one pipeline that reads them."""
