"""One script per figure, table or question: compute(results) -> frozen record, plot(record), numbers(record) as CSV.

``figures`` holds what they share, their main() too. A script runs as a plain file, also from an installed wheel.
"""
