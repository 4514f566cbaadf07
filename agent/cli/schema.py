import click

from agent.cli.options import output_options
from agent.cli.output import show_document
from agent.definitions import schema as schema_of_a_definition


@click.command(epilog="Example: svcagent schema > /etc/svcagent/definition.schema.json")
@output_options
def schema() -> None:
    """Print the JSON Schema of a definition file, for editors.

    It covers less than validate, which also checks rules across fields and files.
    """
    show_document(schema_of_a_definition())
