"""Input: data sets on disk, how they are prepared, and the one pipeline that reads them."""
