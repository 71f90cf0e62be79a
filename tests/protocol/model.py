#!/usr/bin/env python3
"""Explicit-state model of the Headstart queue protocol (docs/explanation/architecture.md).

Run:  python3 model.py            every scenario, as written and with the mends (minutes, 1 core)
      python3 model.py S3 -v      scenarios whose name starts with S3, with full traces

Breadth first, so a trace is a shortest one. Two models: the queue (class Model) and registration/removal (class Reg).

How things are modelled
  directory   2 keys; a value is a version number n (exists), -n (deleted by change n), 0 (never existed).
              A change and the acceptance of its event are one step (see README.md for the split).
  incoming    append-only list of ('E', key, value) and ('M', incarnation, round); the index is the sequence number.
  processes   every NATS request is one atomic step and any process may pause before any step. So SIGSTOP/SIGCONT is a
              process that is slow while a second one runs, and a crash is a process that is never scheduled again.
  unknown     (budget lost) the reply of a batch is lost: applied, or still in flight (a `ghost` that may land later).
  NATS kill   acked writes stay; ids of removed messages are forgotten (also stands for the end of the dedupe window).
Every mend is a flag; `frozenset()` is the protocol as written.
"""
import sys, time
from collections import namedtuple

from search import Bad, explore

St = namedtuple('St', 'dirv nchg log acked dlv kv q disp pods jobs rd out acks cons ll pidx bnds ever sealed ghosts bud')
Kv = namedtuple('Kv', 'inc rnd bnd att st')              # st: P(ending/running) D(one) F(ailed); bnd 0: no marker handled yet
Q = namedtuple('Q', 'inc nxt pre main fence ids lane')   # one stream; lane = (seq, copied up to, round): mend M4 only
Pm = namedtuple('Pm', 'seq inc att idx k v')             # a prefill message
Mm = namedtuple('Mm', 'seq inc rnd iseq k v')            # a live message
Fe = namedtuple('Fe', 'seq inc att h st')                # the last fence message; h = holder
Pod = namedtuple('Pod', 'inc att h pc F i v')
Di = namedtuple('Di', 'buf route stg pos')               # a dispatcher; route = (inc, live_from, round); pos: mend M5 only
Bud = namedtuple('Bud', 'chg pods disp nats recr repre fail lost mark')

# The mends (numbers as in README.md)
M1_PURGE = 'M1'      # purge <name>.prefill only below the own fence
M2_SEQ = 'M2'        # sequence numbers never repeat across incarnations
M3_FENCE = 'M3'      # registration writes the first fence; it carries the incarnation; a foreign one ends the pod
M4_LANE = 'M4'       # checkpoint in the queue, written in the same atomic batch as the copies (replaces Nats-Msg-Id)
M5_ORDER = 'M5'      # `incoming` is read by sequence from a position that is moved by compare-and-set; refused = reload routes and position
M6_ROUND = 'M6'      # live messages carry the round; the reader decides by the message and re-reads the state
M7_RETRY = 'M7'      # a retry of a failed prefill keeps its boundary; a finished one gets a new round
M8_SEAL = 'M8'       # the seal decides, whatever the Job says (also after `failed`); complete without seal = failed
M9_UNKNOWN = 'M9'    # unknown batch outcome: re-write the fence first, then read the last index
M10_LOST = 'M10'     # a pod that lost the fence exits "transient", it does not take it back
ALL = frozenset([M1_PURGE, M2_SEQ, M3_FENCE, M4_LANE, M5_ORDER, M6_ROUND, M7_RETRY, M8_SEAL, M9_UNKNOWN, M10_LOST])


class Model:
    def __init__(self, mends, bud, coarse_d=False, coarse_p=False, coarse_r=False, seam=False, start_done=False):
        self.m, self.bud, self.seam = frozenset(mends), bud, seam
        self.cd, self.cp, self.cr, self.start_done = coarse_d, coarse_p, coarse_r, start_done

    # ---- start: one subscription has just been registered, its marker is sent by `marker`
    def new_queue(self, inc):
        n = 100 * (inc - 1) + 1 if M2_SEQ in self.m else 1
        fence = lane = None
        if M3_FENCE in self.m:
            fence, n = Fe(n, inc, 0, 0, 'o'), n + 1
        if M4_LANE in self.m:
            lane, n = (n, 0, 0), n + 1
        return Q(inc, n, (), (), fence, frozenset(), lane)

    def initial(self):
        s = St((1, 0), 1, (), frozenset(), 0, Kv(1, 1, 0, 1, 'P'), self.new_queue(1), (Di((), None, '', 0),), (), (), None, None, (),
               (0, 0), 0, (0, -1), (), 0, frozenset(), (), self.bud)
        if self.start_done:   # round 1 is activated at sequence 1, filled, read
            q = s.q
            q = q._replace(fence=Fe(q.nxt, 1, 1, 0, 's'), nxt=q.nxt + 1)
            if q.lane:
                q = q._replace(lane=(q.nxt, 1, 1), nxt=q.nxt + 1)
            s = s._replace(log=(('M', 1, 1),), acked=frozenset([1]), dlv=1, kv=Kv(1, 1, 1, 1, 'D'), q=q, cons=(1, 0), ever=1,
                           bnds=((1, 1, 1),), sealed=frozenset([(1, 1)]), disp=(Di((), (1, 1, 1), '', 1),), jobs=(((1, 1), 'C'),))
        return s

    # ---- truth, used by the checks only
    def true_round(self, s, inc, iseq):
        return max([r for (i, r, b) in s.bnds if i == inc and b < iseq], default=0)

    def deliver(self, s, msg):
        """The consumer gets and applies a message. All promises about order are checked here."""
        q, kv = s.q, s.kv
        if msg.inc != q.inc:
            raise Bad('a message of another incarnation is delivered')
        cons = list(s.cons)
        if isinstance(msg, Pm):
            if (msg.inc, msg.att) not in s.sealed:
                raise Bad('prefill read before it is complete (attempt not sealed)')
            if msg.att == s.pidx[0] and msg.idx < s.pidx[1]:
                raise Bad('prefill out of order: an index comes again after a later one')
            s = s._replace(pidx=(msg.att, msg.idx))
        else:
            tr = self.true_round(s, msg.inc, msg.iseq)
            if tr == 0:
                raise Bad('an event from before the activation is delivered as live')
            if kv and kv.inc == msg.inc:
                if tr == kv.rnd and not (kv.st == 'D' and not q.pre):
                    raise Bad('live before its prefill (same round)')
                if tr < kv.rnd and s.ever < tr:
                    raise Bad('live before the first prefill ever finished')
            if msg.iseq < s.ll:
                raise Bad('live out of order: an older event after a newer one')
            if self.seam and abs(msg.v) < abs(cons[msg.k]):
                raise Bad('older state after a newer one at the seam prefill/live')
            s = s._replace(ll=msg.iseq)
        cons[msg.k] = msg.v
        return s._replace(cons=tuple(cons), out=(msg.seq, msg.inc), rd=None)

    def quiet(self, s):
        """Nothing is under way that the system knows of."""
        return (s.kv and s.q and s.kv.st == 'D' and s.kv.bnd and len(s.acked) == len(s.log) and not s.q.pre and not s.q.main
                and s.out is None and not s.acks and not s.ghosts)

    def same(self, s):
        return all((c if c > 0 else 0) == (d if d > 0 else 0) for c, d in zip(s.cons, s.dirv))

    def check(self, s):
        if self.quiet(s) and not self.same(s):
            raise Bad('HOLE: all quiet, but the consumer differs from the directory: %s / %s' % (s.cons, s.dirv))

    def goal(self, s):
        return (s.kv is None and not s.bud.recr) or (self.quiet(s) and self.same(s))

    # ---- all steps
    def steps(self, s):
        yield from self.world(s)
        for i, d in enumerate(s.disp):
            yield from self.dispatcher(s, i, d)
        for i, p in enumerate(s.pods):
            yield from self.pod(s, i, p)
        yield from self.reconciler(s)
        yield from self.reader(s)

    def world(self, s):
        b, kv, q = s.bud, s.kv, s.q
        if b.chg:
            for k in (0, 1):
                n = s.nchg + 1
                for v in ((n, -n) if s.dirv[k] > 0 else (n,)):
                    d = list(s.dirv); d[k] = v
                    yield ('change: key %d -> %s, event %d accepted' % (k, v, len(s.log) + 1),
                           s._replace(dirv=tuple(d), nchg=n, log=s.log + (('E', k, v),), bud=b._replace(chg=b.chg - 1)))
        if kv and not kv.bnd:
            n = s.log.count(('M', kv.inc, kv.rnd))
            if n == 0 or (n == 1 and b.mark):
                yield ('api/sweep: marker of incarnation %d round %d is entry %d' % (kv.inc, kv.rnd, len(s.log) + 1),
                       s._replace(log=s.log + (('M', kv.inc, kv.rnd),), bud=b if n == 0 else b._replace(mark=b.mark - 1)))
        if b.nats and q:
            live = frozenset(self.mid(m.inc, m.iseq) for m in q.main)
            if q.ids - live:
                yield ('NATS killed: ids of removed messages are forgotten', s._replace(q=q._replace(ids=q.ids & live), bud=b._replace(nats=0)))
        if b.recr and kv:
            yield ('api: subscription deleted', s._replace(kv=None, q=None, rd=None, out=None, acks=s.acks + ((s.out,) if s.out else ())))
        if b.recr and not kv:
            inc = 2
            yield ('api: registered again, incarnation 2', s._replace(kv=Kv(inc, 1, 0, 1, 'P'), q=self.new_queue(inc), cons=(0, 0), ll=0, pidx=(0, -1),
                                                                      ever=0, bud=b._replace(recr=0)))
        if b.repre and kv and kv.st in 'DF' and (kv.st == 'D' or M7_RETRY not in self.m):
            yield ('api: prefill asked again (was %s): attempt %d, round %d' % (kv.st, kv.att + 1, kv.rnd + 1),
                   s._replace(kv=Kv(kv.inc, kv.rnd + 1, 0, kv.att + 1, 'P'), bud=b._replace(repre=b.repre - 1)))
        if b.repre and kv and kv.st == 'F' and M7_RETRY in self.m:
            yield ('api: prefill asked again (failed): attempt %d, same boundary' % (kv.att + 1),
                   s._replace(kv=kv._replace(att=kv.att + 1, st='P'), bud=b._replace(repre=b.repre - 1)))
        for g in s.ghosts:
            rest = tuple(x for x in s.ghosts if x != g)
            inc, att, h, F, i, v = g
            if q and q.fence and q.fence.seq == F:
                yield ('late batch %d of pod %d lands' % (i, h), s._replace(ghosts=rest, q=self.fill(q, inc, att, i, v)))
            else:
                yield ('late batch of pod %d is refused' % h, s._replace(ghosts=rest))
        for a in s.acks:   # an acknowledgement that was under way when the subscription was deleted
            rest = tuple(x for x in s.acks if x != a)
            yield ('late ack of %d (incarnation %d) arrives' % a, self.ack(s._replace(acks=rest), a))

    # ---- dispatcher
    def mid(self, inc, iseq):
        return iseq                                            # as written: Nats-Msg-Id = incoming sequence

    def route_now(self, s):
        if M4_LANE in self.m:
            return (s.q.inc, 0, s.q.lane[2]) if s.q and s.q.lane[1] else None
        return (s.kv.inc, s.kv.bnd, s.kv.rnd) if s.kv and s.kv.bnd else None

    def fresh(self, s):
        return Di((), self.route_now(s), '', len(s.acked) if M5_ORDER in self.m else 0)

    def dispatcher(self, s, i, d):
        def put(s2, d2):
            l = list(s2.disp); l[i] = d2
            return s2._replace(disp=tuple(l))
        me = 'dispatcher %d: ' % i
        if s.bud.disp and i == len(s.disp) - 1:
            nd, b = self.fresh(s), s.bud._replace(disp=s.bud.disp - 1)
            if d.buf:
                yield ('dispatcher killed, another starts', s._replace(disp=s.disp[:-1] + (nd,), bud=b))
                if len(s.disp) < 2:
                    yield ('dispatcher paused, another starts', s._replace(disp=s.disp + (nd,), bud=b))
        if d.route and (not s.kv or s.kv.inc != d.route[0]):
            yield (me + 'KV watch: route dropped', put(s, d._replace(route=None)))
        if not d.buf:
            lo = [n for n in range(1, len(s.log) + 1) if n not in s.acked]
            if M5_ORDER in self.m:
                mine = range(d.pos + 1, min(d.pos + 2, len(s.log)) + 1)
                if mine and mine[0] > len(s.acked):
                    yield (me + 'reads %s' % list(mine), put(s, d._replace(buf=tuple(mine))))
                elif mine:
                    yield (me + 'entries are gone: another is ahead, reloads', put(s, self.fresh(s)))
            elif self.cd:
                if lo:
                    yield (me + 'takes %s' % lo[:2], put(s._replace(dlv=max(s.dlv, lo[:2][-1])), d._replace(buf=tuple(lo[:2]))))
            else:
                new, again = [n for n in lo if n > s.dlv], [n for n in lo if n <= s.dlv]
                if new:
                    yield (me + 'takes %s' % new[:2], put(s._replace(dlv=new[:2][-1]), d._replace(buf=tuple(new[:2]))))
                if again:
                    yield (me + 'gets %s again after ack_wait' % again[:2], put(s, d._replace(buf=tuple(again[:2]))))
            return
        n = d.buf[0]
        if M5_ORDER in self.m and n - 1 != len(s.acked):     # the compare-and-set of the position will be refused
            done, moved = put(s, self.fresh(s)), False
        else:
            done, moved = put(s._replace(acked=s.acked | {n}), d._replace(buf=d.buf[1:], stg='', pos=n)), True
        if d.stg == 'a':
            yield (me + ('acks %d' % n if moved else 'position refused, reloads'), done)
            return
        e = s.log[n - 1]
        if e[0] == 'M':
            kv, q = s.kv, s.q
            if kv and (kv.inc, kv.rnd) == e[1:]:
                s2, bnd = s, kv.bnd
                if M4_LANE in self.m and q.lane[2] < kv.rnd:      # checkpoint first, then KV, then the position
                    yield (me + 'marker %d: checkpoint {%d, round %d}' % (n, n, kv.rnd),
                           s._replace(q=q._replace(lane=(q.nxt, n, kv.rnd), nxt=q.nxt + 1), bnds=s.bnds + ((kv.inc, kv.rnd, n),)))
                    return
                if not bnd:
                    bnd = n
                    s2 = s._replace(kv=kv._replace(bnd=n), bnds=s.bnds if M4_LANE in self.m else s.bnds + ((kv.inc, kv.rnd, n),))
                l = list(s2.disp); l[i] = Di(d.buf[1:], (kv.inc, bnd, kv.rnd), '', n) if moved else self.fresh(s2)
                yield (me + 'marker %d: boundary of round %d is %d' % (n, kv.rnd, bnd), s2._replace(disp=tuple(l), acked=s.acked | {n} if moved else s.acked))
            else:
                yield (me + 'marker %d ignored' % n, done)
            return
        q, r = s.q, d.route
        if not r:
            yield (me + ('event %d: no route, acked' % n if moved else 'position refused, reloads'), done)
        elif not q:
            yield (me + 'event %d: stream gone, route dropped' % n, put(done, done.disp[i]._replace(route=None)))
        elif M4_LANE in self.m:
            if q.inc != r[0]:
                yield (me + 'event %d refused (checkpoint of another incarnation), route reloaded' % n, put(s, d._replace(route=self.route_now(s))))
            elif q.lane[1] >= n:
                yield (me + 'event %d is below the checkpoint: skipped' % n, put(s, d._replace(stg='a')))
            else:
                q2 = q._replace(main=q.main + (Mm(q.nxt + 1, r[0], q.lane[2], n, e[1], e[2]),), lane=(q.nxt, n, q.lane[2]), nxt=q.nxt + 2)
                yield (me + 'event %d + checkpoint -> main' % n, put(s._replace(q=q2), d._replace(stg='a')))
        elif self.mid(r[0], n) in q.ids:
            yield (me + 'event %d refused as duplicate' % n, put(s, d._replace(stg='a')))
        else:
            q2 = q._replace(main=q.main + (Mm(q.nxt, r[0], r[2], n, e[1], e[2]),), nxt=q.nxt + 1, ids=q.ids | {self.mid(r[0], n)})
            yield (me + 'event %d -> main as %d' % (n, q.nxt), put(s._replace(q=q2), d._replace(stg='a')))

    # ---- prefill pods
    def fill(self, q, inc, att, i, v):
        return q._replace(pre=q.pre + (Pm(q.nxt, inc, att, i, i, v),), nxt=q.nxt + 1)

    def job(self, s, key, val):
        return s._replace(jobs=tuple(sorted({**dict(s.jobs), key: val}.items())))

    def pod(self, s, i, p):
        def put(s2, p2):
            l = list(s2.pods); l[i:i + 1] = [p2] if p2 else []
            return s2._replace(pods=tuple(l))
        me, q = 'pod %d (inc %d, attempt %d): ' % (p.h, p.inc, p.att), s.q
        lost = (me + 'has lost the fence, exits transient', put(s, None)) if M10_LOST in self.m else (me + 'refused, reads the fence again', put(s, p._replace(pc='f', i=-1)))
        if not q:
            yield (me + 'stream gone, exits', put(s, None))
            return
        f = q.fence
        mine = f and f.seq == p.F
        aba = f and (f.inc, f.att, f.h) != (p.inc, p.att, p.h)
        if p.pc == 'f':
            if M3_FENCE in self.m and f.inc != p.inc:
                yield (me + 'foreign fence, exits', put(s, None))
            elif f and (f.att > p.att or (f.att == p.att and f.st == 's')):
                yield (me + 'fence sealed or higher: exit 0', put(self.job(s, (p.inc, p.att), 'C'), None))
            else:
                yield (me + 'reads fence %s' % (f.seq if f else None), put(s, p._replace(pc='w', F=f.seq if f else 0)))
        elif p.pc == 'w':
            if (f.seq if f else 0) == p.F:
                if p.inc != q.inc:
                    raise Bad(me + 'takes the fence in the queue of another incarnation')
                if p.i == -1 and f.att == p.att and any(x.h == f.h and x.pc != 'x' for x in s.pods):
                    raise Bad(me + 'takes the fence back from its twin, which will do the same: purge and fill for ever')
                yield (me + 'takes the fence as %d' % q.nxt, put(s._replace(q=q._replace(fence=Fe(q.nxt, p.inc, p.att, p.h, 'o'), nxt=q.nxt + 1)), p._replace(pc='p', F=q.nxt)))
            else:
                yield (me + 'fence refused, reads again', put(s, p._replace(pc='f')))
        elif p.pc == 'p':
            lim = p.F if M1_PURGE in self.m else q.nxt
            gone = [m for m in q.pre if m.seq < lim]
            if any(m.seq > p.F for m in gone):
                raise Bad(me + 'purge by an overtaken attempt removes messages of a later one')
            yield (me + 'purges %d messages' % len(gone), put(s._replace(q=q._replace(pre=tuple(m for m in q.pre if m.seq >= lim))), p._replace(pc='g', i=0)))
        elif p.pc == 'g':
            if p.i == 2:
                nxt = p._replace(pc='s')
            elif s.dirv[p.i] > 0:
                nxt = p._replace(pc='b', v=s.dirv[p.i])
            else:
                nxt = p._replace(i=p.i + 1)
            yield (me + ('GETs key %d' % p.i if p.i < 2 else 'has read all'), put(s, nxt))
        elif p.pc == 'b':
            if mine:
                if aba:
                    raise Bad(me + 'batch of an overtaken pod is accepted (its fence number came again)')
                q2 = self.fill(q, p.inc, p.att, p.i, p.v)
                yield (me + 'batch %d written' % p.i, put(s._replace(q=q2), p._replace(pc='g', i=p.i + 1)))
                if s.bud.lost:
                    b = s.bud._replace(lost=s.bud.lost - 1)
                    un = p._replace(pc='v' if M9_UNKNOWN in self.m else 'u')
                    yield (me + 'batch %d written, reply lost' % p.i, put(s._replace(q=q2, bud=b), un))
                    yield (me + 'batch %d under way, no reply' % p.i, put(s._replace(ghosts=s.ghosts + ((p.inc, p.att, p.h, p.F, p.i, p.v),), bud=b), un))
            else:
                yield lost
        elif p.pc == 'v':
            if mine:
                yield (me + 're-writes its fence as %d' % q.nxt, put(s._replace(q=q._replace(fence=f._replace(seq=q.nxt), nxt=q.nxt + 1)), p._replace(pc='u', F=q.nxt)))
            else:
                yield lost
        elif p.pc == 'u':
            have = q.pre and q.pre[-1].att == p.att and q.pre[-1].inc == p.inc and q.pre[-1].idx >= p.i
            yield (me + 'reads the last index: batch %d %s' % (p.i, 'is there' if have else 'is not there'),
                   put(s, p._replace(pc='g', i=p.i + 1) if have else p._replace(pc='b')))
        elif p.pc == 's':
            if mine:
                if aba:
                    raise Bad(me + 'seal of an overtaken pod is accepted (its fence number came again)')
                yield (me + 'seals', put(s._replace(q=q._replace(fence=f._replace(seq=q.nxt, st='s'), nxt=q.nxt + 1), sealed=s.sealed | {(p.inc, p.att)}), p._replace(pc='x')))
            else:
                yield lost
        elif p.pc == 'x':
            yield (me + 'exit 0', put(self.job(s, (p.inc, p.att), 'C'), None))

    # ---- reconciler (its KV writes are compare-and-set, so one step; also stands for the Job controller)
    def reconciler(self, s):
        kv, q = s.kv, s.q
        if not kv or not q or kv.st == 'D':
            return
        key = (kv.inc, kv.att)
        st, f = dict(s.jobs).get(key), q.fence
        sealed = f and f.st == 's' and f.att == kv.att and (M3_FENCE not in self.m or f.inc == kv.inc)
        if kv.st == 'F':
            if M8_SEAL in self.m and sealed:
                yield ('reconciler: sealed after all -> done', s._replace(kv=kv._replace(st='D'), ever=max(s.ever, kv.rnd)))
            return
        if self.cp and kv.bnd:   # the whole prefill as one step
            q2 = q._replace(pre=(), fence=Fe(q.nxt, kv.inc, kv.att, 9, 's'), nxt=q.nxt + 1)
            for k in (0, 1):
                if s.dirv[k] > 0:
                    q2 = self.fill(q2, kv.inc, kv.att, k, s.dirv[k])
            yield ('prefill done in one step', s._replace(q=q2, kv=kv._replace(st='D'), ever=max(s.ever, kv.rnd), sealed=s.sealed | {key}))
            return
        mine = [p for p in s.pods if (p.inc, p.att) == key]
        if kv.bnd and st is None and s.bud.pods and len(mine) < 2:
            h = self.bud.pods - s.bud.pods + 1
            yield ('a%s pod of attempt %d starts (pod %d)' % (' second' if mine else '', kv.att, h),
                   s._replace(pods=s.pods + (Pod(kv.inc, kv.att, h, 'f', 0, 0, 0),), bud=s.bud._replace(pods=s.bud.pods - 1)))
        if s.bud.fail and st is None and mine:
            yield ('Job of attempt %d fails (deadline, backoff limit); its pod may go on' % kv.att, self.job(s, key, 'F')._replace(bud=s.bud._replace(fail=s.bud.fail - 1)))
        done = s._replace(kv=kv._replace(st='D'), ever=max(s.ever, kv.rnd))
        if M8_SEAL in self.m:
            if sealed:
                yield ('reconciler: sealed -> done', done)
            elif st in ('F', 'C'):
                yield ('reconciler: Job ended without a seal -> failed', s._replace(kv=kv._replace(st='F')))
        else:
            if st == 'C' and sealed:
                yield ('reconciler: complete and sealed -> done', done)
            if st == 'F':
                yield ('reconciler: Job failed -> failed', s._replace(kv=kv._replace(st='F')))

    # ---- one API replica and one consumer
    def ack(self, s, a):
        n, inc = a
        q = s.q
        if not q:
            return s
        if any(m.seq == n for m in q.pre + q.main):
            if q.inc != inc:
                raise Bad('late ack of an old incarnation removes a message that nobody has read')
            q = q._replace(pre=tuple(m for m in q.pre if m.seq != n), main=tuple(m for m in q.main if m.seq != n))
        return s._replace(q=q)

    def reader(self, s):
        if s.out:
            yield ('consumer acks %d' % s.out[0], self.ack(s._replace(out=None), s.out))
            return
        if not s.q:
            return
        if s.rd is None:
            if s.kv:
                s1 = s._replace(rd=('p', s.kv))
                if not self.cr:
                    if s.q.pre or s.q.main:
                        yield ('reader: state is %s, round %d' % (s.kv.st, s.kv.rnd), s1)
                else:
                    for l, s2 in self.read_head(s1):
                        if s2.rd and s2.rd[0] == 'm':
                            yield from self.read_head(s2)
                        elif s2.rd is None and s2 != s:
                            yield (l, s2)
            return
        yield from self.read_head(s)

    def read_head(self, s):
        pc, v = s.rd
        q, again, mend = s.q, s._replace(rd=None), M6_ROUND in self.m
        if pc == 'p' and v.st == 'D':
            h = q.pre[0] if q.pre else None
            if not h:
                yield ('reader: prefill is drained', s._replace(rd=('m', v)))
            elif h.inc != v.inc:
                yield from self.foreign(s, h)
            elif mend and h.att != v.att:
                yield ('reader: head is of another attempt, reads the state again', again)
            else:
                yield ('reader: prefill %d (key %d = %d) to the consumer' % (h.seq, h.k, h.v), self.deliver(s, h))
            return
        h = q.main[0] if q.main else None
        if not h:
            yield ('reader: empty', again)
        elif h.inc != v.inc:
            yield from self.foreign(s, h)
        elif mend:
            if h.rnd < v.rnd or (h.rnd == v.rnd and v.st == 'D' and pc == 'm'):
                yield ('reader: live %d (event %d, key %d = %d) to the consumer' % (h.seq, h.iseq, h.k, h.v), self.deliver(s, h))
            else:
                yield ('reader: head is of round %d: empty' % h.rnd, again)
        elif v.st == 'D' or (v.rnd > 1 and (not v.bnd or h.iseq <= v.bnd)):
            yield ('reader: live %d (event %d, key %d = %d) to the consumer' % (h.seq, h.iseq, h.k, h.v), self.deliver(s, h))
        else:
            yield ('reader: empty', again)

    def foreign(self, s, h):
        """As written, a message of another incarnation is "ignored", so it has to leave the head."""
        if M2_SEQ in self.m:      # cannot be in this queue: the reader's own view is old
            yield ('reader: its view is old, reads the state again', s._replace(rd=None))
        else:
            if h.inc == s.q.inc:
                raise Bad('reader with an old view drops a message of the new incarnation')
            q = s.q
            yield ('reader: drops foreign %d' % h.seq, s._replace(rd=None, q=q._replace(pre=tuple(m for m in q.pre if m is not h), main=tuple(m for m in q.main if m is not h))))

    def pruned(self, s):
        """A budget of the model, not the protocol, stops this state: no verdict about dead ends."""
        return s.kv is not None and s.kv.st == 'P' and not s.bud.pods and not self.cp or (
            s.kv is not None and s.kv.st == 'F' and not s.bud.repre and (s.kv.inc, s.kv.att) not in s.sealed)


# ---------------------------------------------------------------------------------------------------------------------
class Reg:
    """Registration and removal, step by step, with crashes. State: kv, stream, job, cred, marker, clients, crash budget, incarnations given.
    A client is (kind, params, pc, inc, answer). Objects are (inc, params). As written: stream, Job, credentials, KV entry, marker, 201;
    removal: the stream and the KV entries ("stream first" and "KV first" are both tried: the text leaves it open).
    Mended: the KV entry comes first (reserved, with incarnation and parameters) and is the tombstone at the end."""
    def __init__(self, mended, delete='stream', prog=(('post', 'a'),), crashes=1, one_by_one=False):
        self.seq = one_by_one
        self.mend, self.delete, self.prog, self.crashes = mended, delete, prog, crashes

    def initial(self):
        return (None, None, None, None, None, tuple((k, p, 0, 0, '') for k, p in self.prog), self.crashes, 0)

    def post_order(self):
        return ['kv', 'stream', 'job', 'cred', 'ready', 'marker'] if self.mend else ['stream', 'job', 'cred', 'kv', 'marker']

    def del_order(self):
        return ['tomb', 'job', 'stream', 'cred', 'kv'] if self.mend else (['stream', 'kv', 'cred'] if self.delete == 'stream' else ['kv', 'cred', 'stream'])

    def steps(self, s):
        kv, stream, job, cred, mark, cl, cr, n = s
        ob = dict(kv=kv, stream=stream, job=job, cred=cred, mark=mark)
        for i, c in enumerate(cl):
            kind, par, pc, inc, ans = c
            if self.seq and any(not c2[4] or (c2[4] == 'crash' and c2[0] == 'post') for c2 in cl[:i]):
                break                        # each starts when those before it have ended; a DELETE that died is not sent again
            if ans:
                if ans == 'crash' and not (self.seq and kind == 'del'):
                    yield ('client %d sends %s(%s) again' % (i, kind, par), self.put(s, i, (kind, par, 0, 0, '')))
                continue
            if cr:
                yield ('client %d: replica dies' % i, self.put(s[:6] + (cr - 1, n), i, (kind, par, pc, inc, 'crash')))
            if kind == 'post':
                yield from self.post(s, ob, i, c)
            else:
                yield from self.remove(s, ob, i, c)

    def put(self, s, i, c, ob=None):
        cl = list(s[5]); cl[i] = c
        if ob is None:
            return s[:5] + (tuple(cl),) + s[6:]
        return (ob['kv'], ob['stream'], ob['job'], ob['cred'], ob['mark'], tuple(cl)) + s[6:]

    def post(self, s, ob, i, c):
        kind, par, pc, inc, _ = c
        me = 'client %d POST(%s): ' % (i, par)
        order = self.post_order()
        if pc == len(order):
            kv, st, job = ob['kv'], ob['stream'], ob['job']
            if not (kv and st and job and kv[0] == st[0] == job[0] == inc and kv[1] == job[1] == par):
                raise Bad('201 answered, but the objects do not fit: kv %s, stream %s, job %s, wanted %s' % (kv, st, job, (inc, par)))
            if any(c2[0] == 'del' and c2[2] for c2 in s[5][:i]) and inc == s[5][0][3]:
                raise Bad('201 answered, but on the queue (fence, messages) of the incarnation that was being removed')
            yield (me + '201', self.put(s, i, (kind, par, pc, inc, '201')))
            return
        what, ob = order[pc], dict(ob)
        n = s[7]
        have = ob.get(what)
        if what == 'marker':
            ob['mark'] = inc
        elif what == 'ready':
            if ob['kv'] and ob['kv'][0] == inc and ob['kv'][2] != 'deleting':
                ob['kv'] = (inc, par, 'ok')
            else:
                yield (me + 'entry has changed: starts again', self.put(s, i, (kind, par, 0, 0, '')))
                return
        elif what == 'kv' and self.mend:
            if have is None:
                n += 1
                inc, ob['kv'] = n, (n, par, 'new')
            elif have[2] == 'deleting':      # finish the removal, then start again
                for k in ('job', 'stream', 'cred'):
                    if ob[k] is not None:
                        ob[k] = None
                        yield (me + 'finishes the removal: ' + k, self.put(s, i, c, ob))
                        return
                ob['kv'] = None
                yield (me + 'finishes the removal: entry', self.put(s, i, c, ob))
                return
            elif have[1] != par:
                yield (me + '409', self.put(s, i, (kind, par, pc, inc, '409')))
                return
            else:
                inc = have[0]
        elif self.mend:                       # every object belongs to the entry's incarnation
            if not ob['kv'] or ob['kv'][0] != inc or ob['kv'][2] == 'deleting':
                yield (me + 'entry has changed: starts again', self.put(s, i, (kind, par, 0, 0, '')))
                return
            ob[what] = (inc, par)             # create, or replace one of another incarnation
        else:
            if have is None:
                if what == 'stream':
                    n += 1
                    inc = n
                ob[what] = (inc, par)
            elif what == 'stream':
                inc = have[0]                 # find-equal: the parameters are not part of a stream
            elif have[1] != par:
                yield (me + '409 because of ' + what, self.put(s, i, (kind, par, pc, inc, '409')))
                return
        s2 = self.put(s, i, (kind, par, pc + 1, inc, ''), ob)
        yield (me + what, s2[:7] + (n,))

    def remove(self, s, ob, i, c):
        kind, par, pc, inc, _ = c
        me = 'client %d DELETE: ' % i
        order = self.del_order()
        if pc == len(order):
            yield (me + '200', self.put(s, i, (kind, par, pc, inc, '200')))
            return
        what, ob = order[pc], dict(ob)
        if pc == 0 and ob['kv'] is None:
            yield (me + '404', self.put(s, i, (kind, par, pc, inc, '404')))
            return
        if what == 'tomb':
            ob['kv'] = (ob['kv'][0], ob['kv'][1], 'deleting'); inc = ob['kv'][0]
        elif self.mend and (not ob['kv'] or ob['kv'][0] != inc):
            yield (me + 'another has finished it: 200', self.put(s, i, (kind, par, pc, inc, '200')))
            return
        else:
            ob[what] = None
        yield (me + what, self.put(s, i, (kind, par, pc + 1, inc, ''), ob))

    def check(self, s):
        kv, cl = s[0], s[5]
        if all(c[4] for c in cl) and kv is None and any(c[4] == '409' for c in cl) and not any(c[4] == '200' for c in cl):
            raise Bad('409 for a subscription that does not exist (DELETE says 404): left-overs of a dead request decide')

    def goal(self, s):
        return all(c[4] and (c[4] != 'crash' or c[0] == 'del') for c in s[5])

    def pruned(self, s):
        return False


# ---------------------------------------------------------------------------------------------------------------------
Bs = namedtuple('Bs', 'entry fence q pods people rec job seen bud')
Be = namedtuple('Be', 'att st why')            # the entry: P(ending/running) D(one) F(ailed); why: '' H(eld) C(ancelled) X
Bf = namedtuple('Bf', 'seq att by st')         # the fence: o(pen) s(ealed) h(eld) c(ancelled); by: whose snapshot it closes
Bp = namedtuple('Bp', 'n att pc F')            # a pod
Bw = namedtuple('Bw', 'what att by pc F')      # a request of a person about the snapshot `by` that was shown; pc: r(ead) w(rite)
Bb = namedtuple('Bb', 'pods ask again')

# The rules of the brake (README.md, M25 to M27)
M25_HOLD = 'M25'     # an attempt with too many removals ends held: not sealed, so not done, so not read
M26_FINAL = 'M26'    # held is final for its attempt: no twin takes the fence and fills anew
M27_BOUND = 'M27'    # an approval seals only that held fence which the person was shown: attempt and compare-and-set
BRAKE = frozenset([M25_HOLD, M26_FINAL, M27_BOUND])


class Brake:
    """The brake of a resync. Every snapshot holds too many removals. Pods, people and whoever records may stop before any step. A message is (attempt, pod
    that wrote it, 'object' or 'removal'). Checked: a removal is read only of the very snapshot that a person approved, and never of one that was cancelled;
    the goal (all is read, or a person gave it up) stays in reach. Live events wait behind a prefill that is not done whatever its fence says: class Model."""
    def __init__(self, mends, pods=3, ask=2, again=1):
        self.m, self.bud = frozenset(mends), Bb(pods, ask, again)

    def initial(self):
        return Bs(Be(1, 'P', ''), Bf(1, 0, 0, 'o'), (), (), (), (), '', (), self.bud)

    def check(self, s):
        pass

    def goal(self, s):
        return (s.entry.st == 'D' and not s.q) or ('cancel', s.entry.att) in s.seen

    def pruned(self, s):      # a budget of the model ends here, not the protocol
        return not s.bud.ask or not s.bud.pods

    def steps(self, s):
        e, f = s.entry, s.fence
        if e.st == 'P' and s.bud.pods:
            n = self.bud.pods - s.bud.pods + 1
            yield 'pod %d of attempt %d starts' % (n, e.att), s._replace(pods=s.pods + (Bp(n, e.att, 'r', 0),), bud=s.bud._replace(pods=s.bud.pods - 1))
        for i, p in enumerate(s.pods):
            yield from self.pod(s, i, p)
        if s.bud.ask and f.st == 'h':
            for what in ('approve', 'cancel'):
                yield ('a person is shown snapshot %d of attempt %d and wants to %s it' % (f.by, f.att, what),
                       s._replace(people=s.people + (Bw(what, f.att, f.by, 'r', 0),), bud=s.bud._replace(ask=s.bud.ask - 1)))
        for i, w in enumerate(s.people):
            yield from self.person(s, i, w)
        if s.bud.again and e.st == 'F':
            yield 'asked again: attempt %d' % (e.att + 1), s._replace(entry=Be(e.att + 1, 'P', ''), bud=s.bud._replace(again=0))
        # Controller or worker: looks at the fence, stops, records.
        seen = (f.att, f.st)
        if f.att == e.att and f.st in 'shc' and e.st != 'D' and not s.rec:
            yield 'recorder sees %s' % (seen,), s._replace(rec=seen)
        if s.rec:
            att, st = s.rec
            t = s._replace(rec=())
            if att == e.att and e.st != 'D':
                t = t._replace(entry=Be(att, 'D', '') if st == 's' else Be(att, 'F', 'H' if st == 'h' else 'C'))
            yield 'recorder writes %s' % (s.rec,), t
        # The consumer: what is done is read.
        if e.st == 'D':
            mine = [m for m in s.q if m[0] == e.att]
            if mine:
                att, by, kind = mine[0]
                if kind == 'removal' and ('approve', att, by) not in s.seen:
                    raise Bad('a removal is read that nobody approved (attempt %d, snapshot %d)' % (att, by))
                if ('cancel', att) in s.seen:
                    raise Bad('a prefill is read that was cancelled')
                yield 'consumer reads a %s of attempt %d' % (kind, att), s._replace(q=s.q[:s.q.index(mine[0])] + s.q[s.q.index(mine[0]) + 1:])
            elif s.q:
                yield 'what is left of other attempts is dropped', s._replace(q=())

    def pod(self, s, i, p):
        def put(s2, p2):
            l = list(s2.pods); l[i:i + 1] = [p2] if p2 else []
            return s2._replace(pods=tuple(l))
        f, me = s.fence, 'pod %d: ' % p.n
        if p.pc == 'r':
            ended = f.att > p.att or (f.att == p.att and (f.st in 'sc' or (f.st == 'h' and M26_FINAL in self.m)))
            yield (me + 'fence is another\'s, or final: ends' if ended else me + 'reads the fence', put(s, None if ended else p._replace(pc='w', F=f.seq)))
        elif p.pc == 'w':
            if f.seq == p.F:
                n = f.seq + 1
                yield me + 'takes the fence and purges', put(s._replace(fence=Bf(n, p.att, p.n, 'o'), q=()), p._replace(pc='f', F=n))
            else:
                yield me + 'refused, reads again', put(s, p._replace(pc='r'))
        elif f.seq != p.F:
            yield me + 'has lost the fence', put(s, None)
        elif p.pc == 'f':
            yield me + 'writes its snapshot', put(s._replace(q=s.q + ((p.att, p.n, 'object'), (p.att, p.n, 'removal'))), p._replace(pc='s'))
        else:
            st = 'h' if M25_HOLD in self.m else 's'
            yield me + ('holds' if st == 'h' else 'seals'), put(s._replace(fence=Bf(f.seq + 1, p.att, p.n, st)), None)

    def person(self, s, i, w):
        def put(s2, w2):
            l = list(s2.people); l[i:i + 1] = [w2] if w2 else []
            return s2._replace(people=tuple(l))
        f, me = s.fence, 'request to %s attempt %d: ' % (w.what, w.att)
        said = s._replace(seen=tuple(sorted(set(s.seen) | {('approve', w.att, w.by) if w.what == 'approve' else ('cancel', w.att)})))
        bound = M27_BOUND in self.m
        if w.pc == 'r':
            if w.what == 'approve' and f.st == 's' and f.att == w.att:
                yield me + 'is approved already', put(s, None)
            elif f.st != 'h' and (bound or f.st != 'o' or w.what == 'cancel') or (bound and f.att != w.att) or (w.what == 'cancel' and f.att != w.att):
                yield me + '409', put(s, None)
            else:
                yield me + 'reads the fence', put(s, w._replace(pc='w', F=f.seq))
        elif f.seq == w.F or not bound:
            st = 's' if w.what == 'approve' else 'c'
            yield me + 'writes the fence', put(said._replace(fence=f._replace(seq=f.seq + 1, st=st)), None)
        else:
            yield me + 'refused, reads again', put(s, w._replace(pc='r'))


def B(**k):
    return Bud(*[k.get(f, 0) for f in Bud._fields])


# name, what, the mends that are the subject, model arguments
SCENARIOS = [
    ('S1 two pods of one attempt', [M1_PURGE, M10_LOST], dict(bud=B(chg=1, pods=2), coarse_d=True, coarse_r=True)),
    ('S2 Job fails, retry, old pod goes on', [M1_PURGE, M7_RETRY], dict(bud=B(chg=1, pods=2, fail=1, repre=1), coarse_d=True, coarse_r=True)),
    ('S2b Job fails after the seal', [M8_SEAL], dict(bud=B(chg=1, pods=1, fail=1), coarse_d=True, coarse_r=True)),
    ('S3 reply of a batch lost', [M9_UNKNOWN], dict(bud=B(chg=1, pods=1, lost=2), coarse_d=True, coarse_r=True)),
    ('S4 dispatcher restarted', [M5_ORDER], dict(bud=B(chg=2, disp=1, mark=1), coarse_p=True, coarse_r=True)),
    ('S5 dispatcher + NATS restarted', [M4_LANE, M5_ORDER], dict(bud=B(chg=3, disp=2, nats=1), coarse_p=True, coarse_r=True, start_done=True)),
    ('S6 asked again, slow reader', [M6_ROUND], dict(bud=B(chg=2, repre=1, pods=1), coarse_d=True, start_done=True)),
    ('S7 failed, asked again, slow reader', [M6_ROUND, M7_RETRY], dict(bud=B(chg=1, repre=2, pods=3, fail=1), coarse_d=True)),
    ('S8 deleted and registered again, old pod', [M2_SEQ, M3_FENCE, M1_PURGE], dict(bud=B(chg=1, pods=2, recr=1), coarse_d=True, coarse_r=True)),
    ('S9 deleted and registered again, old dispatcher, late ack', [M2_SEQ, M4_LANE], dict(bud=B(chg=1, disp=1, recr=1), coarse_p=True, coarse_r=True)),
]
SEAM = ('S10 the seam (promise 2 to the letter)', dict(bud=B(chg=2, pods=1), coarse_d=True, coarse_r=True, seam=True))
REG = [
    ('R1 two POSTs with different parameters', dict(prog=(('post', 'a'), ('post', 'b')), crashes=0)),
    ('R2 POST dies, another POST', dict(prog=(('post', 'a'), ('post', 'b')), crashes=1)),
    ('R3 POST, DELETE that dies, POST', dict(prog=(('post', 'a'), ('del', ''), ('post', 'a')), crashes=1, one_by_one=True)),
]


def show(name, what, res, t, verbose):
    bad, tr, n, full = res.violation, res.trace, res.states, res.complete
    print('%-58s %-22s %8d states %5.1f s  %s' % (name, what, n, t, bad or ('ok' if full else 'no violation (bounded)')))
    if bad and verbose:
        for l in tr:
            print('      ' + l)
    sys.stdout.flush()


def main():
    verbose = '-v' in sys.argv
    pick = [a for a in sys.argv[1:] if not a.startswith('-')]
    def want(n): return not pick or any(n.split()[0] == p for p in pick)
    wrong = []
    def go(name, what, model, broken=None, **k):
        """`broken`: must the search find a violation? None: whatever it finds is only shown."""
        t = time.process_time()
        r = explore(model, **k)
        show(name, what, r, time.process_time() - t, verbose)
        if broken is not None and bool(r.violation) != broken:
            wrong.append('%s, %s: %s' % (name, what, r.violation or 'no violation'))
    for name, subj, args in SCENARIOS:
        if not want(name):
            continue
        go(name, 'as written', Model((), **args))
        for m in subj:                               # each mend is needed: all of them but this one
            go(name, 'all mends but ' + m, Model(ALL - {m}, **args), broken=True)
        go(name, 'all mends', Model(ALL, **args), broken=False, limit=450_000)
    if want(SEAM[0]):
        # M12, which is not modelled.
        go(SEAM[0], 'all mends', Model(ALL, **SEAM[1]), broken=True)
    for name, args in REG:
        if not want(name):
            continue
        for d in ('stream', 'kv'):
            go(name, 'as written, %s first' % d, Reg(False, d, **args))
        go(name, 'mended', Reg(True, **args), broken=False)
    if want('H1'):
        name = 'H1 a resync with too many removals'
        for m in sorted(BRAKE):
            go(name, 'all rules but ' + m, Brake(BRAKE - {m}), broken=True)
        go(name, 'all rules', Brake(BRAKE), broken=False)
    for w in wrong:
        print('NOT AS DOCUMENTED: ' + w)
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main()
