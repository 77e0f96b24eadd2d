"""Every decision's stable code: its name, what it means, what is done about it. Source of the operator's manual."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """name: short and stable, the `cause` of a Decided. means, done: for an operator, in plain words."""

    name: str
    means: str
    done: str


CODES: dict[str, Code] = {
    # 10x-11x: somebody is gone or stuck
    "GF101": Code("crash", "A worker's process ended.", "A spare takes its rank; the process is started again."),
    "GF102": Code(
        "lost",
        "A worker cannot be reached; it may still compute.",
        "It is fenced; its rank goes to a spare, and steps go on once it is fenced or its lease has run out.",
    ),
    "GF103": Code("host off", "A worker's host is off.", "A spare takes its rank; the host goes to repair."),
    "GF104": Code(
        "late", "A worker did not get ready for the next epoch in time.", "It is fenced and a spare takes its rank."
    ),
    "GF105": Code(
        "collective error",
        "A collective failed and nobody is known to be the cause.",
        "The same members form a new world in process; if it happens again, the suspected ones are evicted.",
    ),
    "GF106": Code(
        "program error",
        "A worker's own code raised an error.",
        "The same members form a new world in process; the same error again and again ends the run.",
    ),
    "GF107": Code("join again", "A member's process came back by itself.", "Its rank is filled anew."),
    "GF110": Code(
        "hang",
        "Steps stopped and the members asked are all alive and equally far.",
        "They are asked again until a collective would have timed out; then they form a new world.",
    ),
    "GF111": Code(
        "hung worker",
        "Steps stopped because a worker is silent or did not begin the step that others wait in.",
        "It is fenced and a spare takes its rank.",
    ),
    "GF112": Code(
        "no start", "An epoch did not come to its first step in time.", "Another epoch; in the end all processes anew."
    ),
    "GF113": Code(
        "steps stopped", "No step within the time that a hang is called at.", "The members are asked where they are."
    ),
    # 12x: health and speed
    "GF120": Code(
        "health report", "A host reported something that the run survived.", "Nothing; many in an hour: a swap."
    ),
    "GF121": Code("fatal health", "A host must not be computed on.", "It is fenced and goes to repair."),
    "GF122": Code(
        "straggler",
        "A worker is much slower than its peers, again and again.",
        "A spare takes its rank when one is free.",
    ),
    "GF123": Code("flaky host", "A host reports trouble very often.", "A spare takes its rank at a good moment."),
    "GF124": Code(
        "lemon", "A host failed far more often than its share.", "It is drained, and used again only after a check."
    ),
    "GF125": Code("health check", "A host's test ended.", "Passed: it may be used. Failed: it goes to repair."),
    "GF126": Code(
        "no process", "A worker's process fails each time it is started.", "Its host is tested; then it goes to repair."
    ),
    # 14x: what is computed
    "GF140": Code(
        "not finite",
        "Loss or gradient is not a number.",
        "Back to the copy before it with the same data; if it comes back, from before it without that data.",
    ),
    "GF141": Code(
        "spike",
        "Loss or gradient norm is far above its median.",
        "Back to the copy before it with the same data; if it comes back, from before it without that data.",
    ),
    "GF142": Code(
        "corruption",
        "A worker's copy of the parameters differs from its peers'.",
        "It is fenced, tested and replaced; back to the newest copy that was compared and agreed.",
    ),
    "GF143": Code(
        "corruption of unknown origin",
        "Copies of the parameters differ and nobody can tell which is right.",
        "A step is computed again to find out; then back to the newest copy that was compared and agreed.",
    ),
    "GF144": Code("replay", "A step was computed once more.", "Whoever differs is fenced, tested and replaced."),
    "GF145": Code("damaged copy", "A copy of the state is damaged or incomplete.", "It is passed over."),
    "GF146": Code(
        "rolled back", "Training goes on from an earlier copy than the newest.", "Steps since then are trained again."
    ),
    "GF147": Code(
        "copies missing",
        "A checkpoint that was committed is not offered.",
        "The members are asked again; in the end the run stops rather than train everything anew.",
    ),
    # 16x: the size of the run
    "GF160": Code("start", "Enough workers have joined.", "The first epoch begins."),
    "GF161": Code("shrink", "There is no spare.", "The run goes on with fewer workers."),
    "GF162": Code("grow", "Workers have joined a run that had shrunk.", "The next epoch takes them in."),
    "GF163": Code(
        "too few", "Fewer workers are left than the run needs.", "It waits for more, then requeues or stops."
    ),
    "GF164": Code("waiting", "No spare, but a process is being started again.", "A short wait before shrinking."),
    "GF166": Code("swap", "A member is replaced while it still works.", "A spare takes its rank."),
    # 17x: how the same cause is answered again
    "GF170": Code("evict", "A failure of unknown origin came again.", "Its suspects are replaced and tested."),
    "GF171": Code("restart", "New worlds fail again and again.", "All processes are started again."),
    "GF172": Code("requeue", "The hosts at hand are not enough.", "The scheduler is asked for new ones."),
    "GF173": Code("pause", "The same cause struck again.", "A pause before the next attempt; it doubles each time."),
    # 18x: people and supervisors
    "GF180": Code("drain", "An operator takes a worker out of use.", "A spare takes its rank; then it is drained."),
    "GF181": Code("undrain", "An operator gives a worker back.", "Its host is tested, then it is a spare."),
    "GF182": Code("stop", "An operator ends the run.", "The newest copy is saved and everybody leaves."),
    "GF183": Code("operator's rollback", "An operator sends the run back.", "The next epoch starts from that copy."),
    "GF184": Code(
        "took over", "A supervisor has started again.", "Those alive form a new epoch; the others count as lost."
    ),
    "GF185": Code("no effect", "A command that cannot be done now.", "Nothing."),
    # 19x: how it ends
    "GF190": Code("recovered", "Steps are done again.", "What it cost is told."),
    "GF191": Code("complete", "All steps are done.", "The newest copy is saved and everybody leaves."),
    "GF195": Code("crash loop", "The same cause used up its attempts.", "The run stops and names it."),
    "GF196": Code("restart storm", "Too many restarts brought nothing.", "The run stops and says so."),
    "GF197": Code("cannot go on", "Nothing that may be done is left.", "The run stops and says what is missing."),
}
