"""``ufm verify``."""
import click
@click.command("atlas")
def command(): "x"
