"""Write the results of a run as HTML, tables, pictures, terminal output and a model bundle."""

from remote.deprecated_names import install

install()
