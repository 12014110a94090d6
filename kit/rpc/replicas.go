package rpc

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // gRPC asks replicas for their health only with it
	"google.golang.org/grpc/status"
)

const policyReplicas = "shallot_replicas"

// replicaConfig is the gRPC service configuration of every client off the Unix socket. Retries are made by the interceptor: those of gRPC end with the call's
// own deadline, so a replica that hangs would take all of it.
const replicaConfig = `{"loadBalancingConfig":[{"` + policyReplicas + `":{}}],"healthCheckConfig":{"serviceName":"` + HealthReplica + `"}}`

// How replicas are taken out of rotation that are connected, say that they are well, and do not answer. gRPC's own outlier detection comes only with all
// of its xDS.
const (
	failuresToEject = 3                      // calls in a row without an answer
	tooShort        = 500 * time.Millisecond // a deadline that was nearer says nothing of the replica
	// ejection is not longer the next time: one replica may be the only one that can answer, such as a service's leader whose store was away, and one call that finds out whether it does costs little.
	ejection = 10 * time.Second
)

func init() { balancer.Register(replicasBuilder{}) }

// replicasBuilder makes gRPC's round robin, which passes over replicas that give no answers as long as there are others.
type replicasBuilder struct{}

func (replicasBuilder) Name() string { return policyReplicas }

func (replicasBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	b := &replicas{ClientConn: cc, records: map[string]*record{}}
	return &replicasBalancer{Balancer: endpointsharding.NewBalancer(b, opts, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})}
}

type replicasBalancer struct{ balancer.Balancer }

func (b *replicasBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	return b.Balancer.UpdateClientConnState(balancer.ClientConnState{ResolverState: pickfirst.EnableHealthListener(s.ResolverState)})
}

// replicas stands between the balancer of endpoints and the connection, and puts its own picker in.
type replicas struct {
	balancer.ClientConn
	mu      sync.Mutex
	records map[string]*record // by address, of the endpoints that there are
	next    atomic.Uint32
}

func (r *replicas) UpdateState(s balancer.State) {
	children := endpointsharding.ChildStatesFromPicker(s.Picker)
	p := &replicaPicker{next: &r.next}
	r.mu.Lock()
	there := map[string]*record{}
	for _, c := range children {
		name := nameOf(c)
		rec := r.records[name]
		if rec == nil {
			rec = &record{}
		}
		there[name] = rec
		if c.State.ConnectivityState == connectivity.Ready {
			p.ready = append(p.ready, replica{name, c.State.Picker, rec})
		}
	}
	r.records = there
	r.mu.Unlock()
	if s.ConnectivityState == connectivity.Ready && len(p.ready) > 0 {
		s.Picker = p
	}
	r.ClientConn.UpdateState(s)
}

func nameOf(c endpointsharding.ChildState) string {
	if len(c.Endpoint.Addresses) == 0 {
		return ""
	}
	return c.Endpoint.Addresses[0].Addr
}

// record is what a replica has lately made of its calls.
type record struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
}

func (r *record) out(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.until)
}

func (r *record) judge(err error, took time.Duration, now time.Time) {
	code := status.Code(err)
	if code == codes.Canceled || code == codes.DeadlineExceeded && took < tooShort {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if code != codes.DeadlineExceeded && code != codes.Unavailable {
		r.failures = 0
		return
	}
	if r.failures++; r.failures < failuresToEject || now.Before(r.until) {
		return
	}
	r.failures = failuresToEject - 1 // when it is back, one call decides
	r.until = now.Add(ejection)
}

type replica struct {
	name   string
	picker balancer.Picker
	record *record
}

type replicaPicker struct {
	ready []replica
	next  *atomic.Uint32
}

// Pick takes the next replica that is in rotation and has not failed this very call; where there is none, the next one.
func (p *replicaPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	a, _ := info.Ctx.Value(attemptsKey{}).(*attempts)
	if a.over(p.ready) {
		return balancer.PickResult{}, status.Error(codes.Unavailable, "every replica was asked")
	}
	now, start := time.Now(), p.next.Add(1)
	chosen := p.ready[int(start%uint32(len(p.ready)))]
	for i := range p.ready {
		c := p.ready[(int(start%uint32(len(p.ready)))+i)%len(p.ready)]
		if !c.record.out(now) && !a.failed(c.name) {
			chosen = c
			break
		}
	}
	result, err := chosen.picker.Pick(info)
	if err != nil || a == nil {
		return result, err // a stream's end says nothing of its replica
	}
	a.at(chosen.name)
	done := result.Done
	result.Done = func(d balancer.DoneInfo) {
		end := time.Now()
		chosen.record.judge(d.Err, end.Sub(now), end)
		if done != nil {
			done(d)
		}
	}
	return result, nil
}

// attempts are those of one unary call, on its context.
type attempts struct {
	mu      sync.Mutex
	last    string
	avoided []string
	every   bool // avoids all that it has been at, and ends when there are no more
	ended   bool
}

type attemptsKey struct{}

func (a *attempts) at(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = name
	if a.every {
		a.avoided = append(a.avoided, name)
	}
}

// over tells whether a call that is to be made at every replica has been made at all that are in rotation.
func (a *attempts) over(ready []replica) bool {
	if a == nil || !a.every {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.ended = len(a.avoided) > 0 && !slices.ContainsFunc(ready, func(r replica) bool { return !slices.Contains(a.avoided, r.name) && !r.record.out(now) })
	return a.ended
}

// avoid has the next attempt made elsewhere.
func (a *attempts) avoid() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.avoided = append(a.avoided, a.last)
}

func (a *attempts) failed(name string) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.avoided, name)
}
