package mtls

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Metric names.
const (
	MetricCertificateExpiry = "shallot_tls_certificate_expiry_timestamp_seconds"
	MetricListExpiry        = "shallot_tls_revocation_list_expiry_timestamp_seconds"
	MetricReloadFailures    = "shallot_tls_reload_failures_total"
)

// PollEvery is how soon a change of the files is noticed. They are read and compared, since no notice of a file system is there on every volume.
const PollEvery = 2 * time.Second

// Options of Open; the zero value works.
type Options struct {
	Log      *slog.Logger          // default: none
	Registry prometheus.Registerer // default: none
	Poll     time.Duration         // default PollEvery
	Now      func() time.Time      // default time.Now
}

// Credentials are those of one service, as the files of its directory have them at any time. Safe for concurrent use.
type Credentials struct {
	dir      string
	opts     Options
	failures prometheus.Counter
	current  atomic.Pointer[material]

	mu       sync.Mutex
	watchers map[any]func()
}

// Open reads the directory; what is missing or does not fit together is an error that says which file. Nothing is read again before Run.
// Of an empty dir the credentials are nil: there are none, and only Unix sockets are served and dialled.
func Open(dir string, opts Options) (*Credentials, error) {
	if dir == "" {
		return nil, nil
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Poll <= 0 {
		opts.Poll = PollEvery
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	c := &Credentials{dir: dir, opts: opts, watchers: map[any]func(){}}
	m, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current.Store(m)
	return c, c.measure()
}

func (c *Credentials) measure() error {
	c.failures = prometheus.NewCounter(prometheus.CounterOpts{Name: MetricReloadFailures, Help: "Times that changed credentials could not be used, so that the old ones stayed."})
	if c.opts.Registry == nil {
		return nil
	}
	for _, m := range []prometheus.Collector{
		c.failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: MetricCertificateExpiry, Help: "When this process's certificate expires, in seconds since 1970."},
			func() float64 { return float64(c.current.Load().cert.Leaf.NotAfter.Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: MetricListExpiry, Help: "When the first revocation list expires, in seconds since 1970; 0 without one."},
			func() float64 { return float64(c.current.Load().listsUntil()) }),
	} {
		if err := c.opts.Registry.Register(m); err != nil {
			return err
		}
	}
	return nil
}

func (m *material) listsUntil() int64 {
	var first int64
	for _, l := range m.lists {
		if t := l.until.Unix(); first == 0 || t < first {
			first = t
		}
	}
	return first
}

func (c *Credentials) read() (*material, error) {
	r, err := readDir(c.dir)
	if err != nil {
		return nil, err
	}
	if m := c.current.Load(); m != nil && m.sum == r.sum() {
		return m, nil
	}
	m, err := parse(r, c.opts.Now())
	if err != nil {
		return nil, fault.FailedPrecondition("TLS_FILES_INVALID", "the credentials in %s cannot be used: %v", c.dir, err)
	}
	old := c.current.Load()
	if old != nil && old.lists != nil && m.lists == nil { // or whoever was revoked would be let in again
		return nil, fault.FailedPrecondition("TLS_FILES_INVALID", "%s in %s is gone or empty: 'shallot pki run' writes it", FileCRL, c.dir)
	}
	if old != nil && old.identity != m.identity {
		return nil, fault.FailedPrecondition("TLS_FILES_INVALID", "the credentials in %s are now those of %s, and this process is %s", c.dir, m.identity, old.identity)
	}
	return m, nil
}

// Identity is who this process is.
func (c *Credentials) Identity() Identity { return c.current.Load().identity }

// Run reads the files again whenever they change, until ctx ends. New connections use what is new, calls and connections that are there go on. What
// cannot be used is said in the log once, and counted, and the old credentials stay. Of nil credentials it only waits.
func (c *Credentials) Run(ctx context.Context) error {
	if c == nil {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(c.opts.Poll)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		m, err := c.read()
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			c.failures.Inc()
			c.opts.Log.Error("the credentials changed and cannot be used; the old ones stay", logging.Err(err))
		case err == nil && m != c.current.Load():
			c.current.Store(m)
			c.opts.Log.Info("credentials were read again", slog.Time("expire", m.cert.Leaf.NotAfter))
			c.tell()
			said = ""
		case err == nil:
			said = ""
		}
	}
}

// watch has f called after each change, until unwatch. f must not block.
func (c *Credentials) watch(key any, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[key] = f
}

func (c *Credentials) unwatch(key any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers, key)
}

func (c *Credentials) tell() {
	c.mu.Lock()
	fs := make([]func(), 0, len(c.watchers))
	for _, f := range c.watchers {
		fs = append(fs, f)
	}
	c.mu.Unlock()
	for _, f := range fs {
		f()
	}
}
