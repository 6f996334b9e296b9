# Of a test: a module, Hiera, and a service that is there.
class { 'motd':
  text => lookup('motd::text'),
}

service { 'ssh':
  ensure => running,
  enable => true,
}
