"""The program `pooling` under its former module name: ``python -m pooling_client.cli``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("pooling_cli.main", run_name="__main__")
