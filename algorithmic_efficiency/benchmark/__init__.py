"""What is raced: workloads as data, suites and their rules, and how all are found."""
