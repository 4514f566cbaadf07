import click

from agent.cli.options import output_options
from agent.cli.output import show_document
from agent.definitions import schema as schema_of_a_definition


@click.command(epilog="Example: svcagent schema > /etc/svcagent/definition.schema.json")
@output_options
def schema() -> None:
    """Print the JSON Schema of a definition file, for editors.

    It says less than validate, which also sees what spans several fields or files.
    """
    show_document(schema_of_a_definition())
