"""Every figure, table and question: compute(results) -> frozen record, then plot(record) and numbers(record).

``declarations`` lists them and makes one by its name; ``writing`` writes them. A library only: the command line and the
scripts in the folder ``analysis`` of the repository call it.
"""
