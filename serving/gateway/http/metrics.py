"""What Prometheus is shown: `mmrec_gateway_*`."""

from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.gateway.store.records import Event, ShownList

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts of one gateway, in a registry of its own. No id of a user or an item is a label."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def named(
            kind: type, name: str, text: str, labels: Iterable[str], **more: object
        ) -> object:
            full = f"mmrec_gateway_{name}"
            return kind(full, text, list(labels), registry=self._registry, **more)

        buckets = {"buckets": _SECONDS}
        self._requests = named(Counter, "requests", "Requests.", ["route", "status"])
        self._seconds = named(Histogram, "seconds", "Of requests.", ["route"], **buckets)
        self._asked = named(
            Histogram, "model_seconds", "Of calls to models.", ["signature", "outcome"], **buckets
        )
        self._events = named(Counter, "events", "Events taken in.", ["type", "outcome"])
        self._lists = named(Counter, "lists", "Lists made.", ["arm"])
        self._degraded = named(Counter, "degraded", "Lists without something.", ["reason"])
        self._impressions = named(Counter, "impressions", "Items answered.", ["arm", "slot"])
        self._clicks = named(Counter, "clicks", "Clicks on items shown.", ["arm", "slot"])
        self._reflected = named(
            Histogram,
            "click_to_list_seconds",
            "From a click to the next list of its user.",
            [],
            buckets=(0.1, 0.5, 1, 5, 30, 300),
        )
        self._fresh = named(Gauge, "fresh_items", "Items put and not yet published.", [])
        self._waiting = named(Gauge, "waiting_items", "Items that wait for the encoder.", [])
        self._broken = named(Gauge, "open_breakers", "Servers that are left alone.", [])

        self._spooled = named(Gauge, "spooled_events", "Events that wait for Redis.", [])

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()  # type: ignore[attr-defined]
        self._seconds.labels(route).observe(seconds)  # type: ignore[attr-defined]

    def asked(self, signature: str, seconds: float, outcome: str) -> None:
        """A model was asked."""
        self._asked.labels(signature, outcome).observe(seconds)  # type: ignore[attr-defined]

    def event(self, kind: str, outcome: str) -> None:
        """An event was taken, or not."""
        self._events.labels(kind, outcome).inc()  # type: ignore[attr-defined]

    def answered(self, shown: ShownList, places: slice, *, made: bool) -> None:
        """A page of a list was answered."""
        if made:
            self._lists.labels(shown.arm).inc()  # type: ignore[attr-defined]
            for reason in shown.degraded:
                self._degraded.labels(reason).inc()  # type: ignore[attr-defined]
        for slot, count in Counts(one.slot for one in shown.items[places]).items():
            self._impressions.labels(shown.arm, slot).inc(count)  # type: ignore[attr-defined]

    def click(self, event: Event, shown: ShownList) -> None:
        """An item of a list was liked."""
        slots = [one.slot for one in shown.items if one.item == event.item]
        if slots:
            self._clicks.labels(shown.arm, slots[0]).inc()  # type: ignore[attr-defined]

    def reflected(self, seconds: float) -> None:
        """So long after the newest click of its user a list was made."""
        self._reflected.observe(seconds)  # type: ignore[attr-defined]

    def text(self, *, fresh: int, waiting: int, broken: int, spooled: int = 0) -> bytes:
        """All of it, in Prometheus' form."""
        for gauge, value in (
            (self._fresh, fresh),
            (self._waiting, waiting),
            (self._broken, broken),
            (self._spooled, spooled),
        ):
            gauge.set(value)  # type: ignore[attr-defined]
        return generate_latest(self._registry)
