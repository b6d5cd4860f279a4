"""What the notebooks' files say of themselves: titles, exercises, minutes."""

import json

from qwen3_codec.course.lab import course


def test_every_notebook_has_a_title_and_a_time():
    pages = course.pages()
    assert pages and len({page.title for page in pages}) == len(pages)
    assert all(page.minutes >= 1 and page.seconds > 0 for page in pages)


def test_a_notebook_that_was_never_run(tmp_path):
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["# 1 · A title\n", "and words"]}
    code = {"cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": ["1 + 1"], "outputs": []}
    (tmp_path / "01_first.ipynb").write_text(json.dumps({"cells": [cell, code]}))
    assert course.pages(tmp_path) == [course.Page("01_first", "1 · A title", 1.0, None, 1)]
    assert course.pages(tmp_path / "nothing") == []


def test_the_reading_time_counts_what_cells_print_as_text(tmp_path):
    printed = {"output_type": "display_data", "data": {"text/markdown": ["word " * 500, "word " * 494]}, "metadata": {}}
    cell = {"cell_type": "code", "metadata": {}, "source": ["show()"], "outputs": [printed]}
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# 1 · A title\n"]}
    (tmp_path / "01_first.ipynb").write_text(json.dumps({"cells": [title, cell]}))
    (page,) = course.pages(tmp_path)
    assert page.minutes == (5 + 1 + 994) / course.WORDS_A_MINUTE  # the title, the call, what it prints
