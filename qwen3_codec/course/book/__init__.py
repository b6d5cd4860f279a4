"""The book: the executed pages, the guide and the reference as one set of HTML files, made by Sphinx.

`sources.py` writes what Sphinx reads, `hooks.py` is what Sphinx calls (from `notebooks/conf.py`), and
`python -m qwen3_codec.course.book` builds all of it.
"""
