"""``ufm verify``."""
import click
@click.command("verify")
def command(): "x"
