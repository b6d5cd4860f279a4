"""A plugin: how the files of tests are shared out among processes, where one of these processes dies.

pytest-xdist 3.8 hands out again all that a dead process was ever given, also what it had finished, and a live process
that is given nothing but finished tests waits for ever (its issues 1323, 1327, 1362 and 1378). Nor does it say what
ended the process.
"""

import os
import signal
import time

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """A file at a time to each process. What a dead one has not finished goes to the others.

    The test under which it died runs once more; what dies again is a failure.
    """

    def __init__(self, config, log=None):
        super().__init__(config, log)
        self.died_under = []

    def remove_node(self, node):
        work = self.assigned_work[node]
        left = [(file, test) for file, tests in work.items() for test, done in tests.items() if not done]
        if left:
            file, test = left[0]
            work[file][test] = test in self.died_under  # as if it were done: there is no third time
            self.died_under.append(test)
        self.assigned_work[node] = {file: tests for file, tests in work.items() if not all(tests.values())}
        super().remove_node(node)
        return test if left else None

    def _reschedule(self, node):
        if node not in self.registered_collections:  # it has only begun
            return
        super()._reschedule(node)
        # A process begins a test when it knows the next one, or that there is none.
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config, log):
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_handlecrashitem(report, sched):
    """Name what ended the process; the first time, this is no failure."""
    report.longrepr = f"the process {report.node.gateway.id} ended with {ended_by()}"
    if isinstance(sched, FileScheduling) and sched.died_under.count(report.nodeid) == 1:
        report.outcome = "crashed"


def pytest_report_teststatus(report):
    return ("crashed", "C", "CRASHED") if report.outcome == "crashed" else None


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("crashed", ()):
        terminalreporter.write_line(f"CRASHED, and ran again: {report.nodeid}: {report.longrepr}", yellow=True)


def ended_by():
    """The exit code of the child that has just ended, or the signal that ended it."""
    for _ in range(100):
        try:
            end = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except (AttributeError, ChildProcessError):  # Windows; or it was asked already
            break
        if end:
            return f"exit code {end.si_status}" if end.si_code == os.CLD_EXITED else signal.Signals(end.si_status).name
        time.sleep(0.01)  # its pipe is closed, and it is about to end
    return "nothing that is known"
