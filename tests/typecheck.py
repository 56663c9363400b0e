"""What checks the annotations in tests: an int may stand for a float, as in config."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
