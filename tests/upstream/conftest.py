collect_ignore = ["fork"]  # stands in for upstream's files
