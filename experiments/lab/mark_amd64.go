package lab

func markEnd()
func markCheckpoint()
func markRestore()
