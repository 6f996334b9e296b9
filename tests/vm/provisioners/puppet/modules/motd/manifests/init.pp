class motd (String $text) {
  file { '/etc/puppet-motd':
    ensure  => file,
    content => "${text}\n",
    mode    => '0644',
  }
}
