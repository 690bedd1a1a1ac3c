"""Sweeps: one sequence under many settings and seeds, run by Ray Tune.

Tune starts the trials, limits how many run at the same time and asks a scheduler and a searcher of our own; its
`OptunaSearch`, `ASHAScheduler` and `Tuner.restore` are not used. `OptunaSearch` treats every trial as a point of its
own, whereas a point here is the mean over its seeds, and with two metrics it cannot be given the results of an earlier
start. `ASHAScheduler` has its rungs at powers of the reduction factor, whereas rungs here are the stages of a sequence,
and it does not say by which threshold it stopped a trial, which the table reports. `Tuner.restore` resumes from
snapshots of Tune's own state; a trial here is an ordinary run, which resumes from its own folder, so that a sweep needs
only `state.json` in addition, survives `kill -9` at any moment, and finds its finished runs again after a change of
`concurrency` or of the space. Finally, on Ctrl-C Tune kills its trials; here their drivers first write a checkpoint.
"""
