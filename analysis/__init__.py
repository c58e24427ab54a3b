"""One script per figure, table or question; each has compute(results) -> frozen result, plot(result), main()."""
