package workload

func plantedCases() []Case { return nil }
