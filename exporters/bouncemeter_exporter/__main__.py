"""`python -m bouncemeter_exporter` is the command `bouncemeter`."""

from bouncemeter_exporter.cli import main

if __name__ == "__main__":
    main()
