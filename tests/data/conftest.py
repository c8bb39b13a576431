import logging

import pytest


@pytest.fixture
def log_text(caplog):
    """A function that returns what the log says, as one text."""
    caplog.set_level(logging.INFO, "unlearn_lib")
    logging.getLogger("unlearn_lib").propagate = True
    return lambda: "\n".join(record.getMessage() for record in caplog.records)
