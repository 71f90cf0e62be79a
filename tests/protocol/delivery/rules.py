"""The rules of reading from the log. The right design has all; a mutant leaves one out (`World(without=...)`)."""
from enum import Enum


class Rule(Enum):
    """The value is what the rule says."""
    # A reader that looks for the next message.
    CHECKPOINT_FIRST = 'D1 the checkpoint is read before main'
    PLACE_BEFORE_CHECKPOINT = 'D2 the trusted place is noted before the checkpoint is read'
    DROPPED_IS_UNKNOWN = 'D3 what memory has dropped of the log is unknown, not unwanted'
    GAP_IS_NOTICED = 'D4 a tail that has lost entries begins anew at the position'
    READER_STOPS = 'D5 neither delivery nor acknowledgement passes a marker or a notice of ours'
    SAME_ROUND = 'D6 direct only if the checkpoint has the round of the view'
    PREFILL_DONE = 'D7 direct only if the prefill of that round is done'
    PREFILL_DRAINED = 'D8 direct only if that prefill is drained'
    POP_WRITES_FIRST = 'D9 what is removed by being read is removed before it is answered'
    # Acknowledgements.
    CONDITION = 'D10 a checkpoint is written only over the one it was judged by'
    COPIES_BETWEEN = 'D11 an acknowledgement out of order copies what lies between'
    JUDGED_BY_TAIL = 'D12 what lies between is known only from a tail that reaches from the checkpoint on'
    LAGGING_WAITS = 'D13 what the tail does not hold yet is waited for, and not answered'
    MISSING_IS_404 = 'D14 a copy that is not found is no acknowledgement that is answered with 200'
    LETTERS_IN_LOG = 'D15 a dead letter that is sent again goes through the log'
    # Dispatchers.
    BELOW_FIRST = 'D16 the checkpoint passes a marker or notice after all below is copied'
    NOTICE_RECORDED = 'D17 the checkpoint passes a notice after its dead letter is recorded'
    UNSEEN_HOLDS = 'D18 the position stays below what is wanted behind the checkpoint that was read'
    MARKER_HOLDS = 'D19 the position stays below a marker behind the checkpoint that was read'
    GAP_FORGETS = 'D20 a gap makes a dispatcher forget the checkpoint'
    # Streams.
    STREAM_STOPS = 'D21 a stream begins anew at a marker'
    STREAM_NOTICES_GAP = 'D22 a stream begins anew when its tail no longer reaches back to it'
    STREAM_KEEPS_PLACE = 'D23 a stream that begins anew gives nothing that it has given'
    PAGE_READS_CHECKPOINT = 'D24 the checkpoint is read for each page'
    MAIN_BEFORE_TAIL = 'D25 a stream reads what was copied before it goes on from its tail'
    # Options.
    LANE_IS_LISTED = 'D26 the second place counts for a lane only if it is not listed as behind'
    CLEAR_IF_EMPTY = 'D27 a checkpoint is made clear on the condition that main is empty'
    CLEAR_NEEDED = 'D28 direct only from a clear checkpoint'
    CONFIRMED = 'D29 a tail that begins behind the checkpoint counts after a write of one\'s own'
    # Rounds, again.
    VIEW_FIRST = 'D30 the view of the entry is noted before main is looked at'
    STREAM_CHECKS_EPOCH = 'D31 a stream whose checkpoint has another epoch begins anew'
    BEGINNING_CONFIRMED = 'D32 a dispatcher that began behind the checkpoint judges after a write of its own'
