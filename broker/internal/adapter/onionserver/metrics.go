package onionserver

import "github.com/prometheus/client_golang/prometheus"

// Names. No label is an identity.
const (
	Added    = "shallot_onion_added_total"
	Uploads  = "shallot_onion_uploads_total"
	Lost     = "shallot_onion_tor_lost_total"
	Online   = "shallot_onion_tor_online"
	Services = "shallot_onion_services"
)

// Observer is an onions.Observer.
type Observer struct {
	added    *prometheus.CounterVec
	uploads  prometheus.Counter
	lost     prometheus.Counter
	online   prometheus.Gauge
	services *prometheus.GaugeVec
}

// NewObserver registers the metrics.
func NewObserver(r prometheus.Registerer) *Observer {
	o := &Observer{
		added:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: Added, Help: "Onion services that tor has, by why: new, again (tor restarted, or nobody took the descriptor) or adopted."}, []string{"why"}),
		uploads:  prometheus.NewCounter(prometheus.CounterOpts{Name: Uploads, Help: "Descriptors that a directory of the Tor network took."}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: Lost, Help: "Connections to tor's control port that ended."}),
		online:   prometheus.NewGauge(prometheus.GaugeOpts{Name: Online, Help: "1 while tor is connected to its network."}),
		services: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: Services, Help: "Onion services that are kept, and of them those that are published."}, []string{"state"}),
	}
	r.MustRegister(o.added, o.uploads, o.lost, o.online, o.services)
	return o
}

// Added counts one.
func (o *Observer) Added(why string) { o.added.WithLabelValues(why).Inc() }

// Uploaded counts one.
func (o *Observer) Uploaded() { o.uploads.Inc() }

// Lost counts one.
func (o *Observer) Lost() { o.lost.Inc() }

// Gauges sets what is now.
func (o *Observer) Gauges(online bool, services, published int) {
	up := 0.0
	if online {
		up = 1
	}
	o.online.Set(up)
	o.services.WithLabelValues("kept").Set(float64(services))
	o.services.WithLabelValues("published").Set(float64(published))
}
