"""A typed view of an actor template, as the workflows and the scheduler read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ateapi.lifecycle import CrashPolicy, FailurePolicy, GoldenFallback
from ateapi.store.rows import ResourceRow
from atepb import atelet_pb2 as pb

# {word of a document: policy}; the first is the default, also of a template that was stored before
# there were policies.
FAILURE_POLICIES: Final = {
    "Crash": FailurePolicy.CRASH,
    "KeepRunning": FailurePolicy.KEEP_RUNNING,
    "Pause": FailurePolicy.PAUSE,
}
CRASH_POLICIES: Final = {
    "Hold": CrashPolicy.HOLD,
    "Revert": CrashPolicy.REVERT,
    "RevertAndResume": CrashPolicy.REVERT_AND_RESUME,
}
GOLDEN_FALLBACKS: Final = {
    "Boot": GoldenFallback.BOOT,
    "Refuse": GoldenFallback.REFUSE,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of a label selector."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            # As in Kubernetes: who has no such label is not in any set of its values.
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Kubernetes' LabelSelector: all of it must match; an empty one matches everything."""

    match_labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "LabelSelector":
        """Read a valid `workerSelector`."""
        return cls(
            match_labels=dict(spec.get("matchLabels", {})),
            expressions=tuple(
                Requirement(item["key"], item["operator"], frozenset(item.get("values", ())))
                for item in spec.get("matchExpressions", ())
            ),
        )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            expression.matches(labels) for expression in self.expressions
        )


@dataclass(frozen=True, slots=True)
class Readiness:
    """An HTTP probe."""

    path: str
    port: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a template.

    Attributes:
        command: Replaces the image's entrypoint and command when not empty.
        env: (name, value) in the order of the document.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    readiness: Readiness | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """One revision of an actor template; `uid` names the revision, which never changes.

    Attributes:
        location: Where snapshots of its actors go, without a trailing slash.
        selector: Of worker pools, by their labels.
        on_suspend_failure: What becomes of a live sandbox that a suspend or pause cannot save.
        on_crash: What follows a crash by itself.
        golden_fallback: What follows a golden snapshot that cannot be restored.
        spec: What a node is told to run (`workload_spec`), built once for all requests.
        spec_with_env: The same with the environment of the containers.
    """

    uid: str
    namespace: str
    name: str
    location: str
    sandbox_class: str
    selector: LabelSelector
    containers: tuple[Container, ...]
    pause_image: str
    on_suspend_failure: FailurePolicy
    on_crash: CrashPolicy
    golden_fallback: GoldenFallback
    spec: pb.WorkloadSpec = field(repr=False, compare=False)
    spec_with_env: pb.WorkloadSpec = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, row: ResourceRow) -> "Template":
        """Read a template of the catalog, which is valid or would not be there."""
        spec = cast("Mapping[str, Any]", row.spec)
        containers = tuple(_container(item) for item in spec["containers"])
        pause_image = spec.get("pauseImage", "")
        return cls(
            uid=row.uid,
            namespace=row.namespace,
            name=row.name,
            location=spec["snapshotsConfig"]["location"].rstrip("/"),
            sandbox_class=spec["sandboxClass"],
            selector=LabelSelector.of(spec.get("workerSelector", {})),
            containers=containers,
            pause_image=pause_image,
            on_suspend_failure=FAILURE_POLICIES[spec.get("onSuspendFailure", "Crash")],
            on_crash=CRASH_POLICIES[spec.get("onCrash", "Hold")],
            golden_fallback=GOLDEN_FALLBACKS[spec.get("goldenFallback", "Boot")],
            spec=_message(containers, pause_image, with_env=False),
            spec_with_env=_message(containers, pause_image, with_env=True),
        )


def workload_spec(template: Template, *, with_env: bool) -> pb.WorkloadSpec:
    """Return what a node is told to run; the message is shared, never change it."""
    return template.spec_with_env if with_env else template.spec


def _container(spec: Mapping[str, Any]) -> Container:
    probe = spec.get("readyz")
    return Container(
        name=spec["name"],
        image=spec["image"],
        command=tuple(spec.get("command", ())),
        env=tuple((entry["name"], entry.get("value", "")) for entry in spec.get("env", ())),
        readiness=Readiness(probe["httpGet"]["path"], probe["httpGet"]["port"]) if probe else None,
    )


def _message(
    containers: tuple[Container, ...], pause_image: str, *, with_env: bool
) -> pb.WorkloadSpec:
    message = pb.WorkloadSpec(pause_image=pause_image)
    for container in containers:
        item = message.containers.add(
            name=container.name, image=container.image, command=container.command
        )
        if container.readiness is not None:
            item.readyz.http_get.path = container.readiness.path
            item.readyz.http_get.port = container.readiness.port
        if with_env:
            for name, value in container.env:
                item.env.add(name=name, value=value)
    return message
