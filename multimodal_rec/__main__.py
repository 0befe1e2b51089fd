"""`python -m multimodal_rec`: the command line, where the console script is not on the path."""

from multimodal_rec.cli import main

# Processes that are spawned import this module again, under another name.
if __name__ == "__main__":
    main()
