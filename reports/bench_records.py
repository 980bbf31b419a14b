"""The lines of bench.jsonl, typed: what a benchmark run leaves on disk, and all that a report may read of it.

Every line is `{"schema": 2, "kind": "bench", "what": <a name below>, "id": …, …}` with the fields of the class of that name.
`process` lines are the measurement: one for each fresh process, whole or not there. `counters` stand for themselves. All others are
derived from processes and written anew at the end of each run: **of two lines with the same `what` and `id` the last one counts**.

    name        line of                                          id
    process     one group of peers timed together once           <group>/#<process>
    cell        one peer's cost, over all its processes          <workload>/<dtype>/<device>/<threads>t/<peer>
    comparison  one peer against the baseline                    the cell's
    control     the baseline against itself in one group         the group's: <workload>/<dtype>/<device>/<threads>t
    trust       whether this run's timings may be believed       "trust"
    roof        one limit of the machine                         roof/<what is measured>/<dtype>/<device>/<threads>t/<size>
    growth      how one peer's time or memory grows              growth/<family>/<dtype>/<device>/<threads>t/<peer>/<quantity>
    cost        what one piece of the suite itself costs         cost/<piece>
    counters    what one call of one peer counts up to           the cell's

Times are nanoseconds a call, sizes bytes, `flops` and `bytes` come from the workload's formula. What was not measured is null.
A ratio is the peer's time over the baseline's: below 1 the peer is faster. The manifest lists the planned cells' ids under
`bench_planned`, and those to be counted under `counters_planned`. A planned cell without its line, or with status "missing", was
not measured and is red.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import msgspec

from reports.records import SCHEMA, Extended, RecordError, Verdict

STATUSES = {
    "measured": "timed or counted, and the outputs of those calls are within the oracle's budget",
    "wrong": "its output is not: it has no speed and no counts, `gate` says which claim failed",
    "not installed": "the peer's package is not here",
    "not offered": "the peer has no such step, dtype or device",
    "failed": "it raised, crashed or did not answer in time: `message` says what",
    "missing": "planned, but the time limit came before it ran",
}
VERDICTS = {
    "faster": "the whole interval lies below the band of the margin around 1",
    "slower": "the whole interval lies above it",
    "same": "the whole interval lies inside it",
    "unresolved": "the interval crosses the edge of the band: more rounds are needed",
    "untrusted": "the control says that here, now, the baseline cannot be told from itself, or that peers ran beside each other",
}


@dataclass(frozen=True)
class Gate:
    """What the oracle says of the outputs of the timed calls."""

    verdict: str  # a name of reports.records.Verdict: PASS, FAIL, SUSPECT, VACUOUS, …; "" when nothing was run
    claim: str  # the id of the claim that was checked
    message: str = ""  # for FAIL: what is wrong where
    share: Extended | None = None  # the largest error as a share of its budget; infinite for a NaN
    compared: int = 0  # components compared
    sample: str = ""  # which part of the output was compared, when not all of it
    outputs: list[str] = field(default_factory=list)  # digests of the outputs judged

    def __post_init__(self) -> None:
        if self.share is not None:
            object.__setattr__(self, "share", float(self.share))  # an infinite one is a string on disk

    @property
    def passed(self) -> bool:
        """Whether a peer with such outputs has a speed and counts."""
        return self.verdict in {Verdict.PASS, Verdict.SUSPECT}


@dataclass(frozen=True)
class Timed:
    """One peer in one process. Sample i of all peers of the process belongs to round i."""

    peer: str
    status: str  # of STATUSES
    message: str = ""
    really: str = ""  # the code that ran: the tier or kernel chosen, or what it fell back to
    inner: int = 0  # calls in a row that one sample is the mean of
    samples: list[float] = field(default_factory=list)  # ns a call, one a round; none is ever dropped
    order: list[int] = field(default_factory=list)  # its place in each round, 0 = ran first
    at: list[float] = field(default_factory=list)  # seconds from `started` to the sample
    first_call_ns: float | None = None  # the very first call: compilation, caches, lazy set-up
    peak_bytes: int | None = None  # how far one call raised the process's resident memory (CUDA: allocated memory)
    gate: Gate | None = None


@dataclass(frozen=True)
class _OfGroup:
    """What all lines of a group say of it: the peers of one workload, dtype, device and number of threads."""

    id: str
    group: str
    workload: str
    step: str
    dtype: str
    device: str
    threads: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class Process(_OfGroup):
    """The measurement: one group of peers, in random order inside every round, in one fresh process."""

    what: ClassVar[str] = "process"
    process: int  # 0, 1, 2, … within the group
    seed: int  # of the inputs and of the orders
    started: float  # seconds since 1970
    seconds: float  # with set-up and checks
    timed: list[Timed]
    load: dict[str, Any]  # before and after: {"load": [1 min, 1 min], "pressure": [CPU pressure, …]}
    pools: list[str]  # the thread pools that were found and how many threads each had
    disturbed: dict[str, int] = field(default_factory=dict)  # peer → samples begun while another's threads still ran; not dropped
    repeated: dict[str, int] = field(default_factory=dict)  # peer → how often a sample was taken again for memory it fetched
    throttled: str = ""  # a GPU's reasons for a lower clock during the process, as its driver names them


@dataclass(frozen=True)
class Cell(_OfGroup):
    """What one peer costs: one row of the table."""

    what: ClassVar[str] = "cell"
    peer: str
    status: str  # of STATUSES; everything measured is null unless it is "measured"
    message: str
    really: str
    gate: Gate | None  # the worst of all processes
    processes: int
    rounds: int  # over all processes
    flops: float
    bytes: float  # moved at least once: inputs, weights and outputs, each read or written once
    tokens: int | None
    median_ns: float | None = None  # median of the processes' medians
    low_ns: float | None = None  # 95 % interval of it, between processes
    high_ns: float | None = None
    min_ns: float | None = None
    first_call_ns: float | None = None
    peak_bytes: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    tokens_per_s: float | None = None
    roof_share: float | None = None  # time the machine's limit allows / time taken
    roof_bound: str = ""  # which limit that is: "products" or "memory"
    above_roof: bool = False  # faster than the limit measured in the same run: an error of measurement or formula


@dataclass(frozen=True)
class Comparison(_OfGroup):
    """One peer against the baseline of its group."""

    what: ClassVar[str] = "comparison"
    baseline: str
    peer: str
    verdict: str  # of VERDICTS; "" when either has no speed, and `message` says why
    message: str
    margin: float  # 0.03: the band is 1/1.03 … 1.03; never narrower than the control's reach
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    ratio_of_minima: float | None = None  # a cross-check
    minima_disagree: bool = False  # it lies outside the interval and on another side of the band
    processes: int = 0
    rounds: int = 0
    process_ratios: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Control:
    """A/A: the baseline entered twice under two names. `trusted` False makes every comparison of its group untrusted."""

    what: ClassVar[str] = "control"
    id: str
    group: str
    baseline: str
    trusted: bool
    message: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    reach: float | None = None  # how far the interval goes from 1: the noise floor of this group
    contains_one: bool | None = None
    processes: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Trust:
    """The controls of the whole run together. `trusted` False makes every comparison untrusted."""

    what: ClassVar[str] = "trust"
    id: str
    trusted: bool
    message: str
    controls: int
    containing_one: int
    p_value: float | None  # of so few containing 1, if the intervals were what they claim to be
    noise_floor: float | None  # median reach of the controls
    pressure: float | None  # median CPU pressure: the share of time in which a task waited for a core
    load: float | None
    first: float | None  # seconds since 1970 of the first and the last process
    last: float | None
    seconds: float


@dataclass(frozen=True)
class Roof:
    """One limit of the machine, measured in the same run."""

    what: ClassVar[str] = "roof"
    id: str
    limit: str  # "products" (flop/s), "read" or "copy" (bytes/s)
    dtype: str
    device: str
    threads: int
    size: dict[str, int]  # {"m", "n", "k"} of a product, {"bytes"} of a working set
    rate: float  # the best of its samples: a limit is the best ever seen
    median_rate: float
    samples: list[float] = field(default_factory=list)  # ns


@dataclass(frozen=True)
class Exponent:
    """y ∝ n^exponent between two lengths; an interval where one can be given."""

    first: int
    last: int
    exponent: float | None
    low: float | None = None
    high: float | None = None
    residual: float | None = None  # root mean square of log y − fit: large when no single power describes the range


@dataclass(frozen=True)
class Growth:
    """How one peer's cost grows with the length of the sequence."""

    what: ClassVar[str] = "growth"
    id: str
    family: str
    step: str
    peer: str
    dtype: str
    device: str
    threads: int
    quantity: str  # "time" or "memory"
    axis: str  # which size grows
    lengths: list[int]
    values: list[float]  # ns or bytes
    local: list[Exponent]  # between neighbouring lengths
    fitted: Exponent | None  # over the stated range: lengths from 512 on


@dataclass(frozen=True)
class Cost:
    """What the suite itself costs."""

    what: ClassVar[str] = "cost"
    id: str
    piece: str  # "oracle", "budget", "claim" or "failure"
    name: str  # a step, a claim's id, or how an implementation fails
    seconds: float  # a call of the oracle, a verdict of the budget, one generated example of the claim, a check that is broken
    per_second: float
    repeats: int
    note: str = ""  # the sizes
    ratio: float | None = None  # of a failure: the processor time of the whole run, as a multiple of a right implementation's


@dataclass(frozen=True)
class Counters(_OfGroup):
    """What one call of one peer counts up to: nearly the same on a busy machine (see `bench.counters.counters`)."""

    what: ClassVar[str] = "counters"
    peer: str
    status: str  # of STATUSES; there are no counts unless it is "measured"
    message: str = ""  # why there are none, or why not all
    gate: Gate | None = None  # of the call whose operators were counted
    instructions: float | None = None  # executed, mean of a few calls; null where callgrind cannot count them
    operators: int | None = None  # of torch, those that operators call included; null for a peer that is not torch's
    allocated_bytes: int | None = None  # by torch, whether given back during the call or not; null likewise


BenchRecord = Process | Cell | Comparison | Control | Trust | Roof | Growth | Cost | Counters
RECORDS: dict[str, type[BenchRecord]] = {
    record.what: record for record in (Process, Cell, Comparison, Control, Trust, Roof, Growth, Cost, Counters)
}
Of = TypeVar("Of")


def line(record: BenchRecord) -> dict[str, Any]:
    """The line that holds this record."""
    return {"schema": SCHEMA, "kind": "bench", "what": record.what, **asdict(record)}


def record(fields: dict[str, Any]) -> BenchRecord:
    """The record that a line's JSON holds, of the kind it names. Raises RecordError."""
    of = RECORDS.get(str(fields.get("what")))
    if of is None:
        raise RecordError(f"expected 'what' to be one of {', '.join(RECORDS)}, got {fields.get('what')!r}")
    return read(fields, of)


def read(fields: dict[str, Any], of: type[Of]) -> Of:
    """The record that a line's JSON holds. Raises RecordError, which says in one line what was expected and where."""
    try:
        return msgspec.convert(fields, of)
    except msgspec.ValidationError as error:
        raise RecordError(str(error)) from None
