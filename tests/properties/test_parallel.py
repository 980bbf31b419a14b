"""`properties.run.parallel`: work shared among processes."""

import signal

from properties.run.parallel import in_parallel


def test_all_work_is_done_in_order_where_asked():
    """Else as it is done."""
    jobs = [(base, 2) for base in range(20)]

    assert list(in_parallel(pow, jobs, 2, ordered=True)) == [base**2 for base in range(20)]
    assert sorted(in_parallel(pow, jobs, 2)) == [base**2 for base in range(20)]


def test_the_processes_ignore_ctrl_c_and_this_one_does_not():
    """A terminal sends it to all: they would print a traceback each."""
    here = signal.getsignal(signal.SIGINT)

    assert set(in_parallel(signal.getsignal, [(signal.SIGINT,)] * 4, 2)) == {signal.SIG_IGN}
    assert signal.getsignal(signal.SIGINT) == here
