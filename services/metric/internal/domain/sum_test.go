package domain_test

import (
	"reflect"
	"testing"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func TestSum(t *testing.T) {
	small := domain.Metric{CPU: domain.CPU{Model: "small", Cores: 1, Threads: 2, MHz: 2000, Load: 1, Load1: 2}, Memory: domain.Space{Total: 4, Free: 1, Used: 3},
		Disk: domain.Space{Total: 10, Free: 10}, GPUs: []domain.GPU{{Model: "a", Memory: 1}}}
	large := domain.Metric{CPU: domain.CPU{Model: "large", Cores: 6, Threads: 6, MHz: 3000, Load: 0, Load1: 1}, Memory: domain.Space{Total: 16, Free: 16},
		Disk: domain.Space{Total: 5, Free: 1, Used: 4}, GPUs: []domain.GPU{{Model: "b", Memory: 2}}}
	want := domain.Metric{CPU: domain.CPU{Model: "large", Cores: 7, Threads: 8, MHz: 3000, Load: 0.25, Load1: 3}, Memory: domain.Space{Total: 20, Free: 17, Used: 3},
		Disk: domain.Space{Total: 15, Free: 11, Used: 4}, GPUs: []domain.GPU{{Model: "a", Memory: 1}, {Model: "b", Memory: 2}}}
	if got := domain.Sum([]domain.Metric{small, large}); !reflect.DeepEqual(got, want) {
		t.Errorf("the sum is %+v, want %+v", got, want)
	}
	if got := domain.Sum([]domain.Metric{small}); !reflect.DeepEqual(got, small) {
		t.Errorf("the sum of one is %+v", got)
	}
	if got := domain.Sum(nil); !reflect.DeepEqual(got, domain.Metric{}) {
		t.Errorf("the sum of none is %+v", got)
	}
	huge := domain.Metric{Memory: domain.Space{Total: 1 << 60, Free: 1 << 60}}
	if got := domain.Sum([]domain.Metric{huge, huge}); got.Memory.Total != 1<<60 || got.Memory.Free > got.Memory.Total {
		t.Errorf("a sum that is larger than may be told is %+v", got.Memory)
	}
}
