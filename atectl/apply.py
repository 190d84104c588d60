"""`ate apply`: documents into the catalog."""

import click

from atectl import documents, failure, options
from atectl.connection import Session
from atectl.documents import Document
from atectl.options import Service
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb


@click.command()
@click.option(
    "-f", "--filename", "sources", multiple=True, required=True, metavar="FILE",
    help="YAML file with one or more documents, - for standard input; may be repeated.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace what exists with another spec.")
@click.option("--dry-run", is_flag=True, help="Check and say what would happen; change nothing.")
@options.service_options(60)
def apply(*, sources: tuple[str, ...], replace: bool, dry_run: bool, service: Service) -> None:
    """Create templates and worker pools, or check that they are as the documents say."""
    read = [document for source in sources for document in documents.read(source)]
    service.run(lambda session: _apply(session, read, replace=replace, dry_run=dry_run))


async def _apply(session: Session, read: list[Document], *, replace: bool, dry_run: bool) -> None:
    # All of them are checked before the first one is applied: a mistake in the last document must
    # not leave half of a file behind.
    if len(read) > 1 and not dry_run:
        for document in read:
            await _apply_one(session, document, replace=replace, dry_run=True)
    for document in read:
        response = await _apply_one(session, document, replace=replace, dry_run=dry_run)
        click.echo(_told(response) + (" (dry run)" if dry_run else ""))


async def _apply_one(
    session: Session, document: Document, *, replace: bool, dry_run: bool
) -> pb.ApplyResponse:
    request = pb.ApplyRequest(document=document.struct(), replace=replace, dry_run=dry_run)
    try:
        return await session.call(session.catalog.Apply, request)
    except AteError as exc:
        if exc.reason not in (Reason.INVALID_ARGUMENT, Reason.TEMPLATE_INVALID):
            raise
        # The service knows fields, and not which of the documents they are in.
        msg = f"cannot apply {document.origin}: {failure.text_of(exc)}"
        raise AteError(exc.reason, msg, metadata=exc.metadata) from exc


def _told(response: pb.ApplyResponse) -> str:
    resource = response.resource
    names = {value.number: value.name for value in pb.ApplyResponse.Action.DESCRIPTOR.values}
    action = names.get(response.action, str(response.action)).removeprefix("ACTION_").lower()
    return f"{resource.kind.lower()}/{resource.name} {action}"
