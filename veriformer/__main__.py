"""`python -m veriformer` is `veriformer`."""

from veriformer.packages import prefer_ours

prefer_ours()

from veriformer.cli import main  # noqa: E402 (only now are our packages found before those of the current directory)

if __name__ == "__main__":
    main(prog_name="veriformer")
