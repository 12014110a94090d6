package domain

// Sum is what several hosts of one node have together: the model of the one with the most threads, and a load that counts each thread the same. The sum of one is itself.
func Sum(hosts []Metric) Metric {
	if len(hosts) == 0 {
		return Metric{}
	}
	out := hosts[0]
	if len(hosts) == 1 {
		return out
	}
	most, busy := uint32(0), 0.0
	out.CPU, out.Memory, out.Disk, out.GPUs = CPU{}, Space{}, Space{}, nil
	for _, h := range hosts {
		if h.CPU.Threads > most || out.CPU.Model == "" {
			most, out.CPU.Model = h.CPU.Threads, h.CPU.Model
		}
		out.CPU.Cores += h.CPU.Cores
		out.CPU.Threads += h.CPU.Threads
		out.CPU.MHz = max(out.CPU.MHz, h.CPU.MHz)
		out.CPU.Load1 += h.CPU.Load1
		busy += h.CPU.Load * float64(h.CPU.Threads)
		out.Memory, out.Disk = out.Memory.plus(h.Memory), out.Disk.plus(h.Disk)
		out.GPUs = append(out.GPUs, h.GPUs...)
	}
	if out.CPU.Threads > 0 {
		out.CPU.Load = busy / float64(out.CPU.Threads)
	}
	return out.Sound()
}

func (s Space) plus(o Space) Space {
	return Space{Total: s.Total + o.Total, Free: s.Free + o.Free, Used: s.Used + o.Used}
}
