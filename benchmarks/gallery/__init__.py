"""One script and one page for each system that the tutorials and papers describe.

``python -m benchmarks.gallery.<name>`` measures one of them: a record in ``benchmarks/results/gallery/``, pictures in ``docs/gallery/``.
``python -m benchmarks.gallery`` renders every page from its template and the records.
"""
